from pathlib import Path

import msgpack
import numpy as np
import pytest

from data_tools.sorted_runs import BIN_BYTES, MOST_BINS, RunWriter, SortedRuns, bin_count
from largede.errors import DataError
from largede.streams.shuffle import random_keys

INPUTS = [900, 0, 1, 2500]


def record(source: int, line: int) -> bytes:
    return bytes(msgpack.packb([source, line, "x" * (line % 50)]))


def plain_order(seed: int) -> list[bytes]:
    """The plain twin: all records in memory, sorted by key and then by input and line."""
    keyed = []
    for source, count in enumerate(INPUTS):
        keys = random_keys(np.arange(1, count + 1), "shard", seed, source).tolist()
        keyed += [(key, source, line, record(source, line)) for line, key in enumerate(keys, start=1)]
    return [entry[3] for entry in sorted(keyed)]


def write_runs(folder: Path, seed: int, bins: int, run_bytes: int) -> SortedRuns:
    """The inputs, two in each of two folders."""
    folders = [folder / "a", folder / "b"]
    for part, sources in zip(folders, ((0, 1), (2, 3)), strict=True):
        part.mkdir(parents=True)
        writer = RunWriter(part, seed, bins, run_bytes)
        for source in sources:
            lines = range(1, INPUTS[source] + 1)
            assert writer.add_input(source, ((line, record(source, line)) for line in lines)) == INPUTS[source]
        writer.finish()
    return SortedRuns(folders)


@pytest.mark.parametrize(("bins", "run_bytes"), [(1, 1 << 30), (7, 20_000), (64, 5_000), (512, 1 << 30)])
def test_any_range_of_any_runs_is_that_of_the_plain_order(tmp_path: Path, bins: int, run_bytes: int) -> None:
    plain = plain_order(seed=3)
    runs = write_runs(tmp_path, 3, bins, run_bytes)
    places = runs.places()
    assert places[0] == 0 and places[-1] == len(plain) and len(places) == bins + 1
    for start, stop in [(0, len(plain)), (0, 1), (1234, 1235), (17, 3000), (len(plain) - 1, len(plain)), (500, 1500)]:
        held = runs.range(start, stop, places)
        assert len(held) == stop - start
        assert [msgpack.packb(row) for row in held.rows(0, len(held))] == plain[start:stop]
        assert held.text_bytes(0, len(held)) == sum(map(len, plain[start:stop]))


def test_seeds_give_other_orders(tmp_path: Path) -> None:
    assert plain_order(1) != plain_order(2)


def test_equal_keys_come_in_the_order_of_the_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "data_tools.sorted_runs.random_keys", lambda numbers, *seed: np.full(len(numbers), 7, dtype=np.uint64)
    )
    runs = write_runs(tmp_path, 3, 16, 10_000)
    places = runs.places()
    rows = runs.range(0, int(places[-1]), places).rows(0, int(places[-1]))
    assert [list(row[:2]) for row in rows] == [[s, n] for s, count in enumerate(INPUTS) for n in range(1, count + 1)]


def test_bins_follow_the_input_up_to_a_bound() -> None:
    assert [bin_count(size) for size in (0, BIN_BYTES, 10 * BIN_BYTES, 10**13)] == [1, 1, 10, MOST_BINS]


def test_a_range_holds_little_more_than_its_records(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, 3, 64, 20_000)
    held = runs.range(100, 200, runs.places())
    assert len(held.text) == held.text_bytes(0, 100)


@pytest.mark.parametrize("place", [3, -3])
def test_a_damaged_work_file_is_named(tmp_path: Path, place: int) -> None:
    runs = write_runs(tmp_path, 3, 4, 1 << 30)
    path = tmp_path / "b" / "run-0000.records"
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"b/run-0000.records is damaged"):
        runs.range(0, int(runs.places()[-1]), runs.places())
