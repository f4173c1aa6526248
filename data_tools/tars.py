"""Shards on disk: tars of compressed blocks, byte for byte the same for the same pairs."""

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np

from largede.errors import DataError
from largede.streams.block import SUFFIX, checksum, encode_block
from largede.streams.index import MAX_SHARD_BYTES, Shard
from largede.streams.pair import Pair


def write_shards(pairs: Iterable[Pair], folder: Path, shard_pairs: int, block_pairs: int) -> list[Shard]:
    """Write all pairs as shard-00000.tar, ... in `folder`; blocks are numbered through."""
    source = iter(pairs)
    shards: list[Shard] = []
    blocks_written = 0
    for first in source:
        name = f"shard-{len(shards):05d}.tar"
        pairs_of_shard = chain([first], islice(source, shard_pairs - 1))
        shard = _write_shard(folder / name, pairs_of_shard, block_pairs, blocks_written)
        shards.append(shard)
        blocks_written += len(shard.blocks)
    return shards


def _write_shard(path: Path, pairs: Iterator[Pair], block_pairs: int, first_block: int) -> Shard:
    tar = TarWriter(path)
    blocks: list[tuple[int, int, int, int]] = []
    samples = 0
    with tar:
        while block := list(islice(pairs, block_pairs)):
            data = encode_block(block)
            offset = tar.add(f"block-{first_block + len(blocks):07d}.{SUFFIX}", data)
            blocks.append((offset, len(data), len(block), checksum(data)))
            samples += len(block)
    if tar.size > MAX_SHARD_BYTES:
        raise DataError(
            f"{path.name} with {samples} pairs takes {tar.size} bytes",
            expected=f"shards of at most {MAX_SHARD_BYTES} bytes",
            mend="choose a smaller --shard-pairs",
        )
    return Shard(path.name, samples, tar.size, tar.sha256, np.array(blocks, dtype=np.uint32))


class TarWriter:
    """A plain ustar file without owner or time. After the block ended `size` and `sha256` describe the file on disk.

    Python's own writer does not say at which offset a member's data begins.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> "TarWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._write(bytes(2 * tarfile.BLOCKSIZE))
                self._write(bytes(-self.size % tarfile.RECORDSIZE))
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns the offset of its data."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        header.mode = 0o644
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self.size
        self._write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
