"""`largede-data shard`: files of pairs, shuffled globally, into shards of blocks with an index."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgpack

from data_tools.buckets import bucket_count, shuffled
from data_tools.pairs import PairReader
from data_tools.progress import with_progress
from data_tools.tars import write_shards
from largede.errors import DataError
from largede.files import writing_folder
from largede.streams.index import FORMAT, INDEX_NAME, VERSION, ShardIndex
from largede.streams.pair import Pair
from largede.streams.places.local import LocalPlace

# How much text a byte of a compressed input is expected to hold; errs to the large side.
_TEXT_PER_COMPRESSED_BYTE = 6


@dataclass(frozen=True)
class ShardSettings:
    """What decides the shards besides the pairs. `skip_bad`: bad lines that may be passed over."""

    shard_pairs: int = 65536
    block_pairs: int = 256
    seed: int = 0
    skip_bad: int = 0

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--block-pairs", self.block_pairs, 1),
            ("--shard-pairs", self.shard_pairs, self.block_pairs),
            ("--skip-bad", self.skip_bad, 0),
        ):
            if value < least:
                raise DataError(f"{flag} {value}", expected=f"{least} or more", mend=f"raise {flag}")


@dataclass(frozen=True)
class ShardResult:
    """What lies in the folder now, and whether this call wrote it."""

    index: ShardIndex
    written: bool
    skipped: int
    seconds: float

    def __str__(self) -> str:
        counts = f"{self.index.samples:,} pairs in {len(self.index.shards)} shards, {self.index.bytes:,} bytes"
        if not self.written:
            return f"{self.index.folder} is up to date: {counts}, made from the same inputs and settings"
        rate = self.index.samples / max(self.seconds, 1e-9)
        bad = f", {self.skipped} bad lines passed over" if self.skipped else ""
        return f"{self.index.folder}: {counts}{bad}; {self.seconds:.1f} s, {rate:,.0f} pairs a second"


def shard(inputs: list[Path], out: Path, settings: ShardSettings) -> ShardResult:
    """Write the pairs of `inputs` as shards into the new folder `out`, or find them there already.

    `out` must be absent, empty, or made from the same inputs (by content, in the same order) and settings; in the last
    case nothing happens. Raises DataError for anything else and for unusable inputs, MachineError on a full disk; then
    `out` is as it was. Needs free space of about the text of the pairs beside `out` while it runs.
    """
    started = time.monotonic()
    made_from = fingerprint(inputs, settings)
    present = _present(out, made_from)
    if present is not None:
        return ShardResult(present, written=False, skipped=0, seconds=0.0)
    reader = PairReader(inputs, settings.skip_bad)
    buckets = bucket_count(sum(map(_expected_text_bytes, inputs)))
    with writing_folder(out) as partial:
        scratch = partial / "buckets"
        scratch.mkdir()
        pairs = map(pair_of, shuffled(_records(reader), settings.seed, buckets, scratch))
        shards = write_shards(with_progress(pairs, "writing"), partial, settings.shard_pairs, settings.block_pairs)
        _demand_pairs(len(shards), inputs)
        scratch.rmdir()
        ShardIndex(LocalPlace(out), settings.seed, made_from, tuple(shards)).save(partial)
    return ShardResult(ShardIndex.load(out), True, reader.skipped, time.monotonic() - started)


def fingerprint(inputs: list[Path], settings: ShardSettings) -> str:
    """Identifies the content of the inputs, their order, the settings and the format."""
    digest = hashlib.sha256(f"{FORMAT} {VERSION} {settings}".encode())
    for path in inputs:
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise DataError(
                f"{path}: {error.strerror}", expected="a readable JSON-lines file", mend="correct the path"
            ) from None
    return digest.hexdigest()


def _present(out: Path, made_from: str) -> ShardIndex | None:
    """The index in `out` when it was made from the same; None when there is nothing in the way."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if out.is_dir() and (out / INDEX_NAME).exists():
        index = ShardIndex.load(out)
        if index.made_from == made_from:
            return index
        raise _in_the_way(f"{out} holds shards of other inputs or settings")
    raise _in_the_way(f"{out} is not empty" if out.is_dir() else f"{out} is a file")


def _in_the_way(given: str) -> DataError:
    return DataError(
        given, expected="a new or empty folder for the shards", mend="choose another --out, or remove that one yourself"
    )


def _expected_text_bytes(path: Path) -> int:
    return path.stat().st_size * (_TEXT_PER_COMPRESSED_BYTE if path.suffix in (".gz", ".zst") else 1)


def _records(pairs: PairReader) -> Iterator[bytes]:
    for pair in with_progress(pairs, "reading"):
        yield record_of(pair)


def record_of(pair: Pair) -> bytes:
    """The pair as it lies in a bucket: the values of its fields."""
    return msgpack.packb(pair)


def pair_of(record: bytes) -> Pair:
    return Pair._make(msgpack.unpackb(record, use_list=False))


def _demand_pairs(shards: int, inputs: list[Path]) -> None:
    if not shards:
        raise DataError(
            ", ".join(map(str, inputs)) + " holds no pairs", expected="one pair at least", mend="name another input"
        )
