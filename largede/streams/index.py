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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from largede.errors import DataError
from largede.files import sha256_file, write_text, writing
from largede.streams.places import place_of
from largede.streams.places.local import LocalPlace
from largede.streams.places.place import NotThere, Place, Unreadable, is_plain_name

INDEX_NAME = "index.json"
BLOCKS_NAME = "blocks.npy"
FORMAT = "largede pairs"
VERSION = 2

TAR_HEADER_BYTES = 512
MAX_SHARD_BYTES = 2**32 - 1
"""Offsets are 32 bits."""
MAX_INDEX_BYTES = 1 << 28
"""Over a million shards; whatever stands at the place under that name, it does not fill the memory."""
SHOWN_PROBLEMS = 5

_MOST_HEADER_BYTES = 4096


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
    """The shards of one place. `made_from` identifies the inputs and settings they were made from."""

    place: Place
    seed: int
    made_from: str
    shards: tuple[Shard, ...]

    @classmethod
    def load(cls, place: Place | Path, *, rank: int = 0, world_size: int = 1) -> "ShardIndex":
        """Read the index and check that every shard is there and as long as it should be.

        Where a look at a file costs a request, each of `world_size` ranks asks for its share of the shards.

        Raises DataError for a missing, unreadable, inconsistent or newer index, and for missing or resized shards.
        """
        index = cls.read(place)
        share = index.shards if index.place.is_near else index.shards[rank::world_size]
        problems = [f"{index.place.where(name)} {problem}" for name, problem in index.file_problems(share).items()]
        if problems:
            more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
            raise DataError(
                "; ".join(problems[:SHOWN_PROBLEMS]) + more,
                expected=f"the shards that {INDEX_NAME} names, as long as it says",
                mend="copy the folder again, or run `largede-data shard` again",
            )
        return index

    @classmethod
    def read(cls, place: Place | Path) -> "ShardIndex":
        """Read the index alone, without a look at the shards."""
        place = place_of(place) if isinstance(place, Path) else place
        where = place.where(INDEX_NAME)
        record = _json_object(place)
        if record.get("format") != FORMAT or record.get("version") != VERSION:
            raise DataError(
                f"{where} has format {record.get('format')!r}, version {record.get('version')!r}",
                expected=f"format {FORMAT!r}, version {VERSION}",
                mend="shard the pairs again with this version of largede",
            )
        try:
            return _from_record(place, record, _block_table(place, record["blocks"]))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(
                f"{where} contradicts itself: {error}",
                expected="an index as `largede-data shard` writes it, untouched",
                mend="copy the folder again, or run `largede-data shard` again",
            ) from None

    @property
    def folder(self) -> Path:
        """The folder of local shards."""
        assert isinstance(self.place, LocalPlace)
        return self.place.folder

    def file_sizes(self, shards: Sequence[Shard]) -> dict[str, int] | None:
        """Bytes of those shards' files that are there; None when the place cannot say. Raises DataError."""
        try:
            return self.place.sizes([shard.name for shard in shards])
        except Unreadable as problem:
            raise DataError(
                f"{self.place}: the sizes of its shards cannot be had: {problem}",
                expected="a place that answers",
                mend="check the address and the connection, and give the same command again",
            ) from None

    def file_problems(self, shards: Sequence[Shard]) -> dict[str, str]:
        """What is wrong with those shards' files as their place lists them, by name; no entry: nothing that shows."""
        sizes = self.file_sizes(shards)
        if sizes is None:
            return {}
        wrong = {shard.name: sizes.get(shard.name) for shard in shards if sizes.get(shard.name) != shard.bytes}
        return {name: "is missing" if size is None else f"has {size} bytes" for name, size in wrong.items()}

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @property
    def block_sizes(self) -> list[list[int]]:
        """Pairs in each block of each shard, in lists: for small sets."""
        return [sizes.tolist() for sizes in self.pairs_of_blocks]

    @property
    def pairs_of_blocks(self) -> list[NDArray[np.uint32]]:
        """Pairs in each block of each shard, still in the mapped table."""
        return [shard.blocks[:, 2] for shard in self.shards]

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


def _json_object(place: Place) -> dict[str, Any]:
    try:
        record = json.loads(place.read_all(INDEX_NAME, MAX_INDEX_BYTES))
    except NotThere:
        raise DataError(
            f"{place} has no {INDEX_NAME}",
            expected="a folder written by `largede-data shard`",
            mend=f"name that folder, or write it: largede-data shard PAIRS.jsonl --out {place}",
        ) from None
    except Unreadable as problem:
        raise _unreadable(place, INDEX_NAME, str(problem)) from None
    except (ValueError, RecursionError) as error:
        raise _unreadable(place, INDEX_NAME, f"is no JSON: {error}") from None
    return record if isinstance(record, dict) else {}


def _unreadable(place: Place, name: str, problem: str) -> DataError:
    return DataError(
        f"{place.where(name)} {problem}",
        expected="an index as `largede-data shard` writes it, and a way to it",
        mend="check the address and the connection; where the file is damaged, copy the folder again",
    )


def _block_table(place: Place, entry: dict[str, Any]) -> NDArray[np.uint32]:
    """All rows of `blocks.npy`, mapped where it is a local file.

    Raises DataError when it is missing, ValueError when it is another one.
    """
    shape = (_typed(entry, "count", int), 4)
    data = BytesIO()
    digest = hashlib.sha256()
    try:
        for piece in place.pieces(BLOCKS_NAME, limit=16 * max(0, shape[0]) + _MOST_HEADER_BYTES):
            digest.update(piece)
            if not isinstance(place, LocalPlace):
                data.write(piece)
    except NotThere:
        raise DataError(
            f"{place.where(BLOCKS_NAME)} is missing",
            expected=f"the table of blocks beside {INDEX_NAME}",
            mend="copy the folder again",
        ) from None
    except Unreadable as problem:
        raise _unreadable(place, BLOCKS_NAME, str(problem)) from None
    _demand(digest.hexdigest() == _typed(entry, "sha256", str), f"{BLOCKS_NAME} does not match its checksum")
    table = _mapped(place.folder / BLOCKS_NAME) if isinstance(place, LocalPlace) else _parsed(data)
    _demand(table.shape == shape and table.dtype == np.dtype("<u4"), f"{BLOCKS_NAME} is not uint32 {shape}")
    return table


def _mapped(path: Path) -> NDArray[np.uint32]:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _parsed(data: BytesIO) -> NDArray[np.uint32]:
    data.seek(0)
    return np.load(data, allow_pickle=False)


def _from_record(place: Place, record: dict[str, Any], table: NDArray[np.uint32]) -> ShardIndex:
    shards = tuple(_shards(_typed(record, "shards", list), table))
    index = ShardIndex(place, _typed(record, "seed", int), _typed(record, "made_from", str), shards)
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
        # A name with a folder or a shell's letters in it would let an index reach outside its own place.
        _demand(is_plain_name(name), f"shard name {name!r} is no file name of letters, digits and . _ - alone")
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
