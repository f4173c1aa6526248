"""A group-by beyond memory: records with the same key come together, in an order that depends on nothing else.

Records are scattered over PARTITIONS by a hash of their key (`writing_groups`, one file for each input). When
all are written, neighbouring partitions are joined into buckets that fit into memory (`buckets_of`), and one bucket
after the other, or several in as many processes, is read and sorted (`groups`).

Groups come in the order of their keys' hashes, records of a group in the order of the files and, within a file, of
writing. So the order depends neither on the size of the buckets nor on the number of processes.

A group file is a list of runs; a run holds one zstandard frame for each partition that is not empty. Beside `x` lie
`x.npy`, where each partition begins in every run, a row for each partition, so that a bucket reads its own rows alone;
and `x.weights.npy`, what the records of each partition weigh in memory.

Memory: a writer holds RUN_BYTES of records and 32 KiB for each run that is written (twice that at its end), a
thousandth of what it was given. A bucket holds its records, BUCKET_BYTES of them or one partition: constant up to 256
GiB of records in all (PARTITIONS times BUCKET_BYTES), from there growing with the input, and refused above
MOST_BUCKET_BYTES, at some 8 TiB or where one key has too many records. There are as many buckets in memory as
processes.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO

import numpy as np
import zstandard
from numpy.typing import NDArray

from largede.errors import DataError
from largede.files import writing

PARTITIONS = 4096
_PARTITION_BITS = 12
RUN_BYTES = 1 << 26
"""A writer holds no more than about this in memory."""
BUCKET_BYTES = 1 << 26
"""Neighbouring partitions are joined while their records weigh no more."""
MOST_BUCKET_BYTES = 1 << 31
"""A bucket above has one enormous group, or the input some eight terabytes: refused before it fills the memory."""

_DIGEST_BYTES = 8
# Lengths of digest and key together, and of the record.
_HEADER = struct.Struct("<II")
# What Python adds to a record in memory: three objects and a place in a list.
_OBJECT_BYTES = 160


@dataclass(frozen=True)
class Bucket:
    """The partitions from `first` to before `stop`; `bytes` is what their records weigh in memory."""

    first: int
    stop: int
    bytes: int


@contextmanager
def writing_groups(path: Path) -> Iterator["GroupWriter"]:
    """A writer of the group file `path`; file and index appear when the block ends well, or not at all."""
    with writing(path) as file:
        writer = GroupWriter(file)
        yield writer
        starts, weights = writer.finish()
    for index, values in ((_starts_path(path), starts), (_weights_path(path), weights)):
        with writing(index) as file:
            np.save(file, values)


class GroupWriter:
    """Collects records by partition and writes them to `file` run by run. Made by `writing_groups`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
        self._starts: list[NDArray[np.int64]] = []
        self._end = 0
        self._total_weights = np.zeros(PARTITIONS, dtype=np.int64)
        self._begin_run()

    def add(self, key: bytes, record: bytes) -> None:
        sort_key = _sort_key(key)
        partition = int.from_bytes(sort_key[:2], "big") >> (16 - _PARTITION_BITS)
        self._buffers[partition] += _HEADER.pack(len(sort_key), len(record)) + sort_key + record
        weight = len(sort_key) + len(record) + _OBJECT_BYTES
        self._weights[partition] += weight
        self._held += weight
        if self._held >= RUN_BYTES:
            self._end_run()

    def finish(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Write what is still held. Where each partition begins in each run, of shape (PARTITIONS + 1, runs), and the
        weights of the partitions; the last row is where the runs end."""
        self._end_run()
        starts = np.array(self._starts, dtype=np.int64).reshape(-1, PARTITIONS + 1)
        return np.ascontiguousarray(starts.T), self._total_weights

    def _begin_run(self) -> None:
        self._buffers = [bytearray() for _ in range(PARTITIONS)]
        self._weights = [0] * PARTITIONS
        self._held = 0

    def _end_run(self) -> None:
        frames = [self._compressor.compress(buffer) if buffer else b"" for buffer in self._buffers]
        if self._held:
            self._file.writelines(frames)
            starts = np.cumsum([self._end, *map(len, frames)])
            self._starts.append(starts)
            self._end = int(starts[-1])
            self._total_weights += np.array(self._weights)
        self._begin_run()


def buckets_of(paths: Sequence[Path]) -> list[Bucket]:
    """The partitions of all files, joined in order into buckets. Raises DataError when one is too large for memory."""
    weights = np.zeros(PARTITIONS, dtype=np.int64)
    for path in paths:
        weights += _array(path, _weights_path(path))
    buckets: list[Bucket] = []
    first = held = 0
    for partition, weight in enumerate(weights.tolist()):
        if held and held + weight > BUCKET_BYTES:
            buckets.append(Bucket(first, partition, held))
            first, held = partition, 0
        held += weight
    if held:
        buckets.append(Bucket(first, PARTITIONS, held))
    _demand_room(buckets)
    return buckets


def groups(paths: Sequence[Path], bucket: Bucket) -> Iterator[tuple[bytes, list[bytes]]]:
    """(key, its records) for every key of the bucket. Raises DataError for a file that is damaged."""
    keyed: list[tuple[bytes, bytes]] = []
    for path in paths:
        try:
            keyed.extend(_records(path, bucket))
        except (OSError, ValueError, struct.error, zstandard.ZstdError) as error:
            raise _damaged(path, error) from error
    # A stable sort: records of one key keep the order of the files.
    keyed.sort(key=itemgetter(0))
    for sort_key, group in groupby(keyed, key=itemgetter(0)):
        yield sort_key[_DIGEST_BYTES:], [record for _, record in group]


def _records(path: Path, bucket: Bucket) -> Iterator[tuple[bytes, bytes]]:
    starts = _array(path, _starts_path(path))[bucket.first : bucket.stop + 1]
    decompressor = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        for run in starts.T:
            first, *ends = run.tolist()
            file.seek(first)
            for end in ends:
                if end > first:
                    yield from _split(decompressor.decompress(file.read(end - first)))
                first = end


def _split(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position < len(data):
        key_length, length = _HEADER.unpack_from(data, position)
        start = position + _HEADER.size
        position = start + key_length + length
        yield data[start : start + key_length], data[start + key_length : position]


def _sort_key(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=_DIGEST_BYTES).digest() + key


def _starts_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.npy")


def _weights_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.weights.npy")


def _array(path: Path, index: Path) -> NDArray[np.int64]:
    try:
        # Of large inputs the index itself is large; only the rows asked for are read.
        array: NDArray[np.int64] = np.load(index, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return array


def _demand_room(buckets: list[Bucket]) -> None:
    largest = max((bucket.bytes for bucket in buckets), default=0)
    if largest > MOST_BUCKET_BYTES:
        raise DataError(
            f"{largest:,} bytes of records belong together, by their keys or nearly",
            expected=f"at most {MOST_BUCKET_BYTES:,} bytes, which are sorted in memory",
            mend="look whether many records carry the same id; give fewer inputs at a time",
        )


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read ({error})",
        expected="a working file as it was written a moment ago",
        mend="remove the working folder that holds it and run the command again",
    )
