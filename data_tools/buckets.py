"""A global shuffle that never holds more than one bucket in memory.

Every record gets a random key (`streams.shuffle`) and the shuffled order is the order of the keys. Pass 1 appends each
record to the bucket of its key's leading bits, pass 2 sorts one bucket after the other. The order does not depend on
the number of buckets, so it may follow the size of the input.
"""

import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np

from largede.streams.shuffle import random_keys

# Key and length before every record.
_HEADER = struct.Struct("<QI")
_BUFFER_BYTES = 1 << 16
_KEYS_AT_ONCE = 4096

BUCKET_BYTES = 1 << 27
# Well below the usual limit of 1,024 open files.
MAX_BUCKETS = 512


def bucket_count(input_bytes: int) -> int:
    """Buckets that keep each near BUCKET_BYTES; very large inputs get larger buckets (1 TB: 2 GB each)."""
    return min(MAX_BUCKETS, 1 + input_bytes // BUCKET_BYTES)


def shuffled(records: Iterable[bytes], seed: int, buckets: int, folder: Path) -> Iterator[bytes]:
    """The records in the order of their keys. Temporary files lie in `folder`, an empty one; each goes when it is read.

    All of `records` is consumed before the first is yielded.
    """
    paths = [folder / f"bucket-{number:03d}" for number in range(buckets)]
    _scatter(records, seed, paths)
    for path in paths:
        keyed = _read_bucket(path)
        path.unlink()
        for _, record in sorted(keyed):
            yield record


def _scatter(records: Iterable[bytes], seed: int, paths: list[Path]) -> None:
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb", buffering=_BUFFER_BYTES)) for path in paths]
        for key, record in _with_keys(records, seed):
            # The key as a fraction of 2^64, times the number of buckets: ascending buckets hold ascending keys.
            file = files[key * len(files) >> 64]
            file.write(_HEADER.pack(key, len(record)))
            file.write(record)


def _with_keys(records: Iterable[bytes], seed: int) -> Iterator[tuple[int, bytes]]:
    source = iter(records)
    first = 0
    while batch := list(islice(source, _KEYS_AT_ONCE)):
        numbers = np.arange(first, first + len(batch), dtype=np.int64)
        yield from zip(random_keys(numbers, "shard", seed).tolist(), batch, strict=True)
        first += len(batch)


def _read_bucket(path: Path) -> list[tuple[int, bytes]]:
    data = path.read_bytes()
    keyed, position = [], 0
    while position < len(data):
        key, length = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        keyed.append((key, data[position : position + length]))
        position += length
    return keyed
