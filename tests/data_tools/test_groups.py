import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from data_tools import groups as module
from data_tools.groups import buckets_of, groups, writing_groups
from largede.errors import DataError

Record = tuple[bytes, bytes]


def made_records(count: int, keys: int, seed: int = 0) -> list[Record]:
    rng = random.Random(seed)
    return [(b"key %d" % rng.randrange(keys), b"record %d" % i + bytes(rng.randrange(40))) for i in range(count)]


def write(path: Path, records: Iterable[Record]) -> Path:
    with writing_groups(path) as writer:
        for key, record in records:
            writer.add(key, record)
    return path


def everything(paths: list[Path]) -> list[tuple[bytes, list[bytes]]]:
    return [group for bucket in buckets_of(paths) for group in groups(paths, bucket)]


def plainly(files: list[list[Record]]) -> dict[bytes, list[bytes]]:
    """The twin: a dictionary of lists."""
    grouped: dict[bytes, list[bytes]] = {}
    for records in files:
        for key, record in records:
            grouped.setdefault(key, []).append(record)
    return grouped


@pytest.mark.parametrize("run_bytes", [1000, 1 << 26])
@pytest.mark.parametrize("bucket_bytes", [1, 30_000, 1 << 26])
def test_groups_equal_those_of_a_dictionary_at_any_size_of_run_and_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_bytes: int, bucket_bytes: int
) -> None:
    files = [made_records(700, 90, seed) for seed in range(3)] + [[]]
    whole = everything([write(tmp_path / f"whole-{i}", records) for i, records in enumerate(files)])
    monkeypatch.setattr(module, "RUN_BYTES", run_bytes)
    monkeypatch.setattr(module, "BUCKET_BYTES", bucket_bytes)
    found = everything([write(tmp_path / f"{i}", records) for i, records in enumerate(files)])
    assert found == whole
    assert dict(found) == plainly(files) and len(found) == len(dict(found)) == 90


def test_buckets_cover_every_partition_once_and_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUCKET_BYTES", 20_000)
    path = write(tmp_path / "records", made_records(5000, 5000))
    buckets = buckets_of([path])
    assert len(buckets) > 20
    assert [b.first for b in buckets] == [0, *(b.stop for b in buckets[:-1])] and buckets[-1].stop == module.PARTITIONS
    assert max(b.bytes for b in buckets) <= 20_000


def test_keys_that_begin_alike_or_are_empty_stay_apart(tmp_path: Path) -> None:
    records = [(b"", b"1"), (b"a", b"b"), (b"ab", b""), (b"", b"2"), (b"a", b"bb")]
    path = write(tmp_path / "records", records)
    assert dict(everything([path])) == {b"": [b"1", b"2"], b"a": [b"b", b"bb"], b"ab": [b""]}


def test_nothing_written_is_no_bucket(tmp_path: Path) -> None:
    assert buckets_of([write(tmp_path / "records", [])]) == []


def test_one_enormous_group_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BUCKET_BYTES", 100_000)
    path = write(tmp_path / "records", [(b"same", bytes(1000))] * 100)
    with pytest.raises(DataError, match="belong together"):
        buckets_of([path])


@pytest.mark.parametrize("damage", ["cut", "flipped", "no index", "no weights"])
def test_a_damaged_working_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "records", made_records(300, 300))
    [bucket] = buckets_of([path])
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-5:]
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    if damage == "no index":
        (tmp_path / "records.npy").unlink()
    if damage == "no weights":
        (tmp_path / "records.weights.npy").unlink()
    path.write_bytes(data)
    with pytest.raises(DataError, match=str(path)):
        list(groups([path], bucket))
        buckets_of([path])


def test_a_bucket_reads_its_own_part_of_the_index_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_BYTES", 20_000)
    monkeypatch.setattr(module, "BUCKET_BYTES", 20_000)
    path = write(tmp_path / "records", made_records(2000, 500))
    buckets = buckets_of([path])
    starts = np.load(tmp_path / "records.npy")
    assert starts.shape[1] > 5 and len(buckets) > 5
    for bucket in buckets:
        expected = list(groups([path], bucket))
        others = np.full_like(starts, -1)
        others[bucket.first : bucket.stop + 1] = starts[bucket.first : bucket.stop + 1]
        np.save(tmp_path / "records.npy", others)
        assert list(groups([path], bucket)) == expected
        np.save(tmp_path / "records.npy", starts)


def test_an_error_while_writing_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing_groups(tmp_path / "records") as writer:
        writer.add(b"key", b"record")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
