"""Shards on disk: tars of compressed blocks, byte for byte the same for the same pairs."""

import hashlib
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from largede.errors import DataError
from largede.files import writing
from largede.streams.block import SUFFIX, checksum, encode_block
from largede.streams.index import MAX_SHARD_BYTES, Shard
from largede.streams.pair import Pair


def write_shard(path: Path, blocks: Iterable[Sequence[Pair]], first_block: int = 0) -> Shard:
    """Write `blocks` of pairs as the tar `path`; its blocks are numbered from `first_block`.

    The tar is whole or absent. Raises DataError when it would be too large for the index, MachineError on a full disk.
    """
    table: list[tuple[int, int, int, int]] = []
    with writing(path) as file:
        tar = TarWriter(file)
        for number, pairs in enumerate(blocks, start=first_block):
            data = encode_block(pairs)
            offset = tar.add(f"block-{number:07d}.{SUFFIX}", data)
            _demand_room(path, tar.size)
            table.append((offset, len(data), len(pairs), checksum(data)))
        tar.finish()
    samples = sum(count for _, _, count, _ in table)
    return Shard(path.name, samples, tar.size, tar.sha256, np.array(table, dtype=np.uint32))


def _demand_room(path: Path, size: int) -> None:
    if size + tarfile.RECORDSIZE > MAX_SHARD_BYTES:
        raise DataError(
            f"{path.name} would take more than {size} bytes",
            expected=f"shards of at most {MAX_SHARD_BYTES} bytes",
            mend="choose a smaller --shard-pairs",
        )


class TarWriter:
    """A plain ustar file without owner or time; `size` and `sha256` describe what was written so far.

    Python's own writer does not say at which offset a member's data begins.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

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

    def finish(self) -> None:
        """The two empty blocks that end a tar, filled up to its record size."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.size % tarfile.RECORDSIZE))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
