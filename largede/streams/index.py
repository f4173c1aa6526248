"""What a set of shards is: `index.json`, small and read by people too, and `blocks.npy`, a row for every block.

    {"format": "largede pairs", "version": 2, "seed": 0, "samples": ..., "bytes": ..., "made_from": "...",
     "blocks": {"count": ..., "sha256": "..."},
     "shards": [{"name": "shard-00000.tar", "samples": ..., "bytes": ..., "sha256": "...", "blocks": ...}, ...]}

`blocks.npy` is uint32 [blocks, 4]: offset of the block's data in its tar, behind the header, and its size, both in
bytes, its pairs, and the CRC-32 of those bytes; shard after shard, as many rows as the shard's `blocks` says. It takes
16 bytes a block, so the eight million blocks of two billion pairs are 125 MB, mapped and not parsed.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from largede.errors import DataError
from largede.files import sha256_file, write_text, writing

INDEX_NAME = "index.json"
BLOCKS_NAME = "blocks.npy"
FORMAT = "largede pairs"
VERSION = 2

TAR_HEADER_BYTES = 512
MAX_SHARD_BYTES = 2**32 - 1
"""Offsets are 32 bits."""


@dataclass(frozen=True, eq=False)
class Shard:
    """One tar. `blocks` is uint32 [number of blocks, 4]: offset of the data, its compressed size, pairs, CRC-32."""

    name: str
    samples: int
    bytes: int
    sha256: str
    blocks: NDArray[np.uint32]

    def to_dict(self) -> dict[str, Any]:
        texts_and_numbers = {name: getattr(self, name) for name in ("name", "samples", "bytes", "sha256")}
        return {**texts_and_numbers, "blocks": len(self.blocks)}


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The shards of one folder. `made_from` identifies the inputs and settings they were made from."""

    folder: Path
    seed: int
    made_from: str
    shards: tuple[Shard, ...]

    @classmethod
    def load(cls, folder: Path) -> "ShardIndex":
        """Read the index and check that every shard is there and as long as it should be.

        Raises DataError for a missing, unreadable, inconsistent or newer index, and for a missing or resized shard.
        """
        index = cls.read(folder)
        for shard in index.shards:
            problem = index.file_problem(shard)
            if problem:
                raise DataError(
                    f"{folder / shard.name} {problem}",
                    expected=f"a shard of {shard.bytes} bytes, as {INDEX_NAME} says",
                    mend="copy the folder again, or run `largede-data shard` again",
                )
        return index

    @classmethod
    def read(cls, folder: Path) -> "ShardIndex":
        """Read the index alone, without a look at the shards."""
        path = folder / INDEX_NAME
        record = _json_object(path)
        if record.get("format") != FORMAT or record.get("version") != VERSION:
            raise DataError(
                f"{path} has format {record.get('format')!r}, version {record.get('version')!r}",
                expected=f"format {FORMAT!r}, version {VERSION}",
                mend="shard the pairs again with this version of largede",
            )
        try:
            return _from_record(folder, record, _block_table(folder / BLOCKS_NAME, record["blocks"]))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(
                f"{path} contradicts itself: {error}",
                expected="an index as `largede-data shard` writes it, untouched",
                mend="copy the folder again, or run `largede-data shard` again",
            ) from None

    def file_problem(self, shard: Shard) -> str | None:
        """What is wrong with the shard's file as the file system sees it, or None."""
        try:
            size = (self.folder / shard.name).stat().st_size
        except FileNotFoundError:
            return "is missing"
        return None if size == shard.bytes else f"has {size} bytes"

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @property
    def block_sizes(self) -> list[list[int]]:
        """Pairs in each block of each shard, as `GlobalOrder` wants them."""
        return [shard.blocks[:, 2].tolist() for shard in self.shards]

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the pairs and their places: equal fingerprints give equal streams."""
        digest = hashlib.sha256()
        for shard in self.shards:
            digest.update(f"{shard.name} {shard.samples} {shard.sha256}\n".encode())
            digest.update(shard.blocks[:, 2].astype("<u4").tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write `index.json` and `blocks.npy` into `folder`."""
        table = np.concatenate([shard.blocks for shard in self.shards])
        with writing(folder / BLOCKS_NAME) as stream:
            np.save(stream, table.astype("<u4"), allow_pickle=False)
        record = {
            "format": FORMAT,
            "version": VERSION,
            "seed": self.seed,
            "samples": self.samples,
            "bytes": self.bytes,
            "made_from": self.made_from,
            "blocks": {"count": len(table), "sha256": sha256_file(folder / BLOCKS_NAME)},
            "shards": [shard.to_dict() for shard in self.shards],
        }
        write_text(folder / INDEX_NAME, json.dumps(record))


def _json_object(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path.parent} has no {INDEX_NAME}",
            expected="a folder written by `largede-data shard`",
            mend="name that folder, or write it: largede-data shard PAIRS.jsonl --out " + str(path.parent),
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is no JSON: {error}",
            expected="an index as `largede-data shard` writes it",
            mend="copy the folder again, or run `largede-data shard` again",
        ) from None
    return record if isinstance(record, dict) else {}


def _block_table(path: Path, entry: dict[str, Any]) -> NDArray[np.uint32]:
    """All rows of `blocks.npy`, mapped. Raises DataError when it is missing, ValueError when it is another one."""
    try:
        changed = sha256_file(path) != _typed(entry, "sha256", str)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing", expected=f"the table of blocks beside {INDEX_NAME}", mend="copy the folder again"
        ) from None
    _demand(not changed, f"{BLOCKS_NAME} does not match its checksum")
    table = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    shape = (_typed(entry, "count", int), 4)
    _demand(table.shape == shape and table.dtype == np.dtype("<u4"), f"{BLOCKS_NAME} is not uint32 {shape}")
    return table


def _from_record(folder: Path, record: dict[str, Any], table: NDArray[np.uint32]) -> ShardIndex:
    shards = tuple(_shards(_typed(record, "shards", list), table))
    index = ShardIndex(folder, _typed(record, "seed", int), _typed(record, "made_from", str), shards)
    _demand(len({shard.name for shard in shards}) == len(shards), "two shards have one name")
    _demand(index.samples == record["samples"] and index.bytes == record["bytes"], "its totals are not the sums")
    _demand(index.samples > 0, "it holds no pairs")
    _demand(sum(len(shard.blocks) for shard in shards) == len(table), f"{BLOCKS_NAME} has blocks of no shard")
    _check_blocks(shards, table)
    return index


def _shards(entries: list[dict[str, Any]], table: NDArray[np.uint32]) -> Iterator[Shard]:
    first = 0
    for entry in entries:
        name, count = _typed(entry, "name", str), _typed(entry, "blocks", int)
        # A name with a folder in it would let an index read files outside its own folder.
        _demand(Path(name).name == name and name != "..", f"shard name {name!r} is no file name")
        _demand(0 < count <= len(table) - first, f"{name} has {count} blocks, {BLOCKS_NAME} has {len(table) - first}")
        samples, size, sha256 = _typed(entry, "samples", int), _typed(entry, "bytes", int), _typed(entry, "sha256", str)
        yield Shard(name, samples, size, sha256, table[first : first + count])
        first += count


def _check_blocks(shards: tuple[Shard, ...], table: NDArray[np.uint32]) -> None:
    """Every block lies inside its shard and the pairs add up; over the whole table at once, since it may be long."""
    offsets, sizes, samples = (table[:, column].astype(np.int64) for column in range(3))
    counts = np.array([len(shard.blocks) for shard in shards])
    room = np.repeat(np.array([shard.bytes for shard in shards]), counts) - sizes
    inside = (offsets >= TAR_HEADER_BYTES) & (sizes > 0) & (offsets <= room) & (samples > 0)
    if not inside.all():
        bad = int(np.repeat(np.arange(len(shards)), counts)[int(np.argmin(inside))])
        raise ValueError(f"a block of {shards[bad].name} lies outside it or is empty")
    sums = np.add.reduceat(samples, np.cumsum(counts) - counts)
    for shard, pairs in zip(shards, sums.tolist(), strict=True):
        _demand(pairs == shard.samples, f"the blocks of {shard.name} do not add up to {shard.samples} pairs")


def _typed(record: dict[str, Any], name: str, kind: type) -> Any:
    value = record[name]
    _demand(type(value) is kind, f"{name!r} is {type(value).__name__}, not {kind.__name__}")
    return value


def _demand(holds: bool, complaint: str) -> None:
    if not holds:
        raise ValueError(complaint)
