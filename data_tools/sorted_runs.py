"""A global shuffle of more than fits into memory, as an external sort by random keys.

Every record has a key (`streams.shuffle`), a function of the seed, the number of its input and its line there; the
shuffled order is the order of the keys, and of the inputs where two keys are equal. Pass 1 writes *runs*: as many
records as fit into memory, sorted. Pass 2 takes any range of places of the whole order, from all runs, and sorts it. So
the order is a function of the records and the seed alone: neither memory nor processes nor the cut into runs show.

A run is three files. `x.keys.npy` holds its sorted keys, uint64. `x.records` holds its records in that order, one
zstandard frame for each of the equal *bins* of the keys' range that is not empty: the lengths as uint32, then the
records. `x.ends.npy` is uint64 [bins + 1, 2], records and compressed bytes before each bin. Neighbouring bins lie side
by side, so a range is one read from each run, and a bin may be far smaller than what pass 2 holds in memory.
"""

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from largede.errors import DataError
from largede.files import writing
from largede.streams.shuffle import random_keys

MOST_BINS = 4096
BIN_BYTES = 1 << 24
"""Text of a bin in a small input; a large one has MOST_BINS bins, each longer."""
OBJECT_BYTES = 96
"""What Python and the sort add to a record in memory."""

# MessagePack's mark of an array whose length follows in four bytes.
_ARRAY = struct.Struct(">BI")
_ARRAY_MARK = 0xDD


def bin_count(text_bytes: int) -> int:
    return max(1, min(MOST_BINS, text_bytes // BIN_BYTES))


class RunWriter:
    """Collects records and writes a run whenever they weigh `run_bytes`, as `run-0000`, ... in `folder`."""

    def __init__(self, folder: Path, seed: int, bins: int, run_bytes: int) -> None:
        self._folder = folder
        self._seed = seed
        self._bounds = _bin_bounds(bins)
        self._run_bytes = run_bytes
        self._runs = 0
        self._keys: list[NDArray[np.uint64]] = []
        self._begin_run()

    def _begin_run(self) -> None:
        self._records: list[bytes] = []
        self._keys.clear()
        self._weight = 0

    def add_input(self, number: int, records: Iterable[tuple[int, bytes]]) -> int:
        """Take all (line, record) of the input called `number`; inputs come in ascending order. Returns their count."""
        count, lines = 0, array("q")
        for line, record in records:
            lines.append(line)
            self._records.append(record)
            self._weight += len(record) + OBJECT_BYTES
            if self._weight >= self._run_bytes:
                count += len(lines)
                self._note_keys(number, lines)
                self._write_run()
                lines = array("q")
        self._note_keys(number, lines)
        return count + len(lines)

    def finish(self) -> None:
        if self._records:
            self._write_run()

    def _note_keys(self, number: int, lines: "array[int]") -> None:
        if lines:
            self._keys.append(random_keys(np.array(lines, dtype=np.int64), "shard", self._seed, number))

    def _write_run(self) -> None:
        keys = np.concatenate(self._keys)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        ends = np.zeros((len(self._bounds) + 1, 2), dtype=np.uint64)
        ends[:, 0] = [*np.searchsorted(keys, self._bounds), len(keys)]
        stem = self._folder / f"run-{self._runs:04d}"
        compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
        with writing(_records_path(stem)) as file:
            for number, (start, stop) in enumerate(_pairwise(ends[:, 0])):
                if start < stop:
                    file.write(compressor.compress(_frame([self._records[place] for place in order[start:stop]])))
                ends[number + 1, 1] = file.tell()
        for path, table in ((_keys_path(stem), keys), (_ends_path(stem), ends)):
            with writing(path) as file:
                np.save(file, table, allow_pickle=False)
        self._runs += 1
        self._begin_run()


class SortedRuns:
    """All runs of some folders, in the order of the inputs, as one order of records."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._stems = [
            path.with_name(path.name.removesuffix(_KEYS))
            for folder in folders
            for path in sorted(folder.glob("*" + _KEYS))
        ]

    def places(self) -> NDArray[np.int64]:
        """Records of all runs before each bin, int64 [bins + 1]; the last is the number of all records."""
        totals = (np.load(_ends_path(stem))[:, 0] for stem in self._stems)
        return np.sum(np.stack(list(totals)), axis=0).astype(np.int64)

    def range(self, start: int, stop: int, places: NDArray[np.int64]) -> "Range":
        """The records at the places `start` to before `stop` of the whole order, in memory; `places` as above."""
        first = int(np.searchsorted(places, start, side="right")) - 1
        last = int(np.searchsorted(places, stop, side="left"))
        spans = [_RunBins.of(stem, first, last) for stem in self._stems]
        order = np.argsort(np.concatenate([span.keys for span in spans]), kind="stable")
        chosen = order[start - int(places[first]) : stop - int(places[first])]
        wanted = np.zeros(len(order), dtype=bool)
        wanted[chosen] = True
        return _gathered(spans, wanted, chosen)


@dataclass(frozen=True, eq=False)
class Range:
    """Records in memory: `text` holds them back to back, `starts` and `stops` their places there, in order."""

    text: bytearray
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def text_bytes(self, start: int, stop: int) -> int:
        """Length of some of the records together."""
        return int((self.stops[start:stop] - self.starts[start:stop]).sum())

    def rows(self, start: int, stop: int) -> list[Any]:
        """Some of the records, which are MessagePack, as values."""
        import msgpack

        # One array of records is one call into the decoder; many small calls cost more.
        view = memoryview(self.text)
        places = zip(self.starts[start:stop].tolist(), self.stops[start:stop].tolist(), strict=True)
        joined = _ARRAY.pack(_ARRAY_MARK, stop - start) + b"".join([view[first:last] for first, last in places])
        values: list[Any] = msgpack.unpackb(joined, use_list=False)
        return list(values)


@dataclass(frozen=True, eq=False)
class _RunBins:
    """The bins `first` to before `last` of one run: their keys, and where their frames lie."""

    stem: Path
    keys: NDArray[np.uint64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, stem: Path, first: int, last: int) -> "_RunBins":
        # Mapped: of a large table and of long keys only what is asked for is read.
        ends = np.load(_ends_path(stem), mmap_mode="r")[first : last + 1].astype(np.int64)
        keys = np.load(_keys_path(stem), mmap_mode="r")[ends[0, 0] : ends[-1, 0]]
        return cls(stem, np.array(keys), ends)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """(number of records, frame) of every bin that is not empty."""
        with _records_path(self.stem).open("rb") as file:
            for (start, offset), (stop, end) in _pairwise(self.ends):
                if start < stop:
                    file.seek(offset)
                    yield int(stop - start), file.read(end - offset)


def _gathered(spans: list[_RunBins], wanted: NDArray[np.bool_], chosen: NDArray[np.int64]) -> Range:
    """The wanted records of all spans; `chosen` lists the same records in the order asked for."""
    text, place = bytearray(), 0
    lengths: list[NDArray[np.int64]] = []
    decompressor = zstandard.ZstdDecompressor()
    for span in spans:
        for count, frame in span.frames():
            inside = np.flatnonzero(wanted[place : place + count])
            place += count
            if len(inside):
                # Keys ascend within a frame, so what is wanted of it lies side by side.
                text += _cut(span.stem, _unframed(span.stem, decompressor, frame), count, inside, lengths)
    stops = np.cumsum(np.concatenate(lengths), dtype=np.int64)
    starts = stops - np.concatenate(lengths)
    kept = np.cumsum(wanted, dtype=np.int64)[chosen] - 1
    return Range(text, starts[kept], stops[kept])


def _frame(records: list[bytes]) -> bytes:
    return np.array([len(record) for record in records], dtype="<u4").tobytes() + b"".join(records)


def _unframed(stem: Path, decompressor: zstandard.ZstdDecompressor, frame: bytes) -> bytes:
    try:
        return decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _damaged(stem, str(error)) from None


def _cut(
    stem: Path, data: bytes, count: int, inside: NDArray[np.int64], lengths: list[NDArray[np.int64]]
) -> memoryview:
    """The bytes of the records numbered `inside`; their lengths are appended to `lengths`."""
    header = 4 * count
    all_lengths = np.frombuffer(data[:header], dtype="<u4").astype(np.int64)
    stops = header + np.cumsum(all_lengths)
    if len(all_lengths) != count or stops[-1] != len(data):
        raise _damaged(stem, "its lengths do not add up")
    lengths.append(all_lengths[inside[0] : inside[-1] + 1])
    return memoryview(data)[stops[inside[0]] - all_lengths[inside[0]] : stops[inside[-1]]]


def _damaged(stem: Path, why: str) -> DataError:
    return DataError(
        f"{_records_path(stem)} is damaged: {why}",
        expected="a work file as it was written",
        mend="remove the work folder and run the same command again",
    )


def _bin_bounds(bins: int) -> NDArray[np.uint64]:
    """The smallest key of each bin."""
    return np.array([-(-(number << 64) // bins) for number in range(bins)], dtype=np.uint64)


def _pairwise(ends: NDArray[Any]) -> Iterator[tuple[Any, Any]]:
    values = ends.tolist()
    return zip(values[:-1], values[1:], strict=True)


_KEYS = ".keys.npy"


def _keys_path(stem: Path) -> Path:
    return stem.with_name(stem.name + _KEYS)


def _ends_path(stem: Path) -> Path:
    return stem.with_name(stem.name + ".ends.npy")


def _records_path(stem: Path) -> Path:
    return stem.with_name(stem.name + ".records")
