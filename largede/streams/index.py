"""`index.json`: what a set of shards is. Written by `largede-data shard`, read before anything else.

    {"format": "largede pairs", "version": 1, "seed": 0, "samples": ..., "bytes": ..., "made_from": "...",
     "shards": [{"name": "shard-00000.tar", "samples": ..., "bytes": ..., "sha256": "...",
                 "blocks": [[offset, size, samples], ...]}, ...]}

`offset` is where the block's data starts in the tar, behind its header; offset, size and bytes are in bytes.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from largede.errors import DataError

INDEX_NAME = "index.json"
FORMAT = "largede pairs"
VERSION = 1

# A tar header and a zstandard frame precede the first pair; a block never needs more than this once decompressed.
TAR_HEADER_BYTES = 512
MAX_BLOCK_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Shard:
    """One tar. `blocks` is int64 [number of blocks, 3]: offset of the data, its compressed size, pairs."""

    name: str
    samples: int
    bytes: int
    sha256: str
    blocks: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        texts_and_numbers = {name: getattr(self, name) for name in ("name", "samples", "bytes", "sha256")}
        return {**texts_and_numbers, "blocks": self.blocks.tolist()}


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
            return _from_record(folder, record)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
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
            digest.update(shard.blocks.astype("<i8").tobytes())
        return digest.hexdigest()

    def to_json(self) -> str:
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "seed": self.seed,
                "samples": self.samples,
                "bytes": self.bytes,
                "made_from": self.made_from,
                "shards": [shard.to_dict() for shard in self.shards],
            }
        )


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


def _from_record(folder: Path, record: dict[str, Any]) -> ShardIndex:
    shards = tuple(_shard(entry) for entry in _typed(record, "shards", list))
    index = ShardIndex(folder, _typed(record, "seed", int), _typed(record, "made_from", str), shards)
    _demand(len({shard.name for shard in shards}) == len(shards), "two shards have one name")
    _demand(index.samples == record["samples"] and index.bytes == record["bytes"], "its totals are not the sums")
    _demand(index.samples > 0, "it holds no pairs")
    return index


def _shard(entry: dict[str, Any]) -> Shard:
    shard = Shard(
        name=_typed(entry, "name", str),
        samples=_typed(entry, "samples", int),
        bytes=_typed(entry, "bytes", int),
        sha256=_typed(entry, "sha256", str),
        blocks=np.array(_typed(entry, "blocks", list), dtype=np.int64).reshape(-1, 3),
    )
    # A name with a folder in it would let an index read files outside its own folder.
    _demand(Path(shard.name).name == shard.name and shard.name != "..", f"shard name {shard.name!r} is no file name")
    offsets, sizes, samples = shard.blocks.T
    inside = (offsets >= TAR_HEADER_BYTES) & (sizes > 0) & (offsets <= shard.bytes - sizes) & (samples > 0)
    _demand(bool(inside.all()), f"a block of {shard.name} lies outside it or is empty")
    _demand(int(samples.sum()) == shard.samples, f"the blocks of {shard.name} do not add up to {shard.samples} pairs")
    return shard


def _typed(record: dict[str, Any], name: str, kind: type) -> Any:
    value = record[name]
    _demand(type(value) is kind, f"{name!r} is {type(value).__name__}, not {kind.__name__}")
    return value


def _demand(holds: bool, complaint: str) -> None:
    if not holds:
        raise ValueError(complaint)
