import hashlib
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from shard_sets import flip_byte, make_shards

from largede.config.batch import BatchPlan
from largede.errors import DataError, RecipeError
from largede.streams import read as reading
from largede.streams.batches import PairBatches
from largede.streams.index import ShardIndex
from largede.streams.order import GlobalOrder
from largede.streams.pair import Pair

BATCH = 20


def named(pairs: list[Pair], step: int) -> tuple[int, list[str]]:
    return step, [pair.query for pair in pairs]


def fails_at_five(pairs: list[Pair], step: int) -> int:
    if step == 5:
        raise DataError("step five", expected="another step", mend="skip it")
    return step


def batches(index: ShardIndex, **changes: Any) -> PairBatches[tuple[int, list[str]]]:
    settings = {"batch_size": BATCH, "lanes": 4, "seed": 3, "rank": 0, "world_size": 1, "transform": named}
    return PairBatches(index.folder, **{**settings, **changes})


def take(stream: PairBatches[Any], count: int) -> list[Any]:
    return list(islice(stream, count))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    return make_shards(tmp_path_factory.mktemp("data"))


def test_the_first_batches_never_change(index: ShardIndex) -> None:
    # Shuffle while sharding and global order together: a change here makes old runs impossible to repeat.
    texts = "\n".join(query for _, queries in take(batches(index), 25) for query in queries)
    assert (
        hashlib.sha256(texts.encode()).hexdigest() == "87d5dd57d26b1f90faf68d875b6997571d304f3175f4c4e2954277e46b4c057d"
    )


def test_an_epoch_holds_every_pair_once(index: ShardIndex) -> None:
    seen = [query for _, queries in take(batches(index, lanes=1), 20) for query in queries]
    assert set(seen[:200]) == set(seen[200:]) == {f"question {i}" for i in range(200)}
    assert len(set(seen[:200])) == 200
    assert batches(index).epoch_of(25) == 2.5


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_join_to_the_same_batches(index: ShardIndex, world_size: int) -> None:
    whole = take(batches(index), 15)
    parts = [take(batches(index, rank=rank, world_size=world_size), 15) for rank in range(world_size)]
    assert [(step, sum((part[step][1] for part in parts), [])) for step in range(15)] == whole
    sizes = [len(part[0][1]) for part in parts]
    assert sizes == list(BatchPlan(BATCH, world_size).counts)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(index: ShardIndex, workers: int) -> None:
    assert take(batches(index, workers=workers, start_step=4), 11) == take(batches(index, start_step=4), 11)


def test_a_resumed_stream_goes_on_where_it_stopped(index: ShardIndex) -> None:
    whole = take(batches(index), 40)
    for start in (1, 13, 39):
        assert take(batches(index, start_step=start), 40 - start) == whole[start:]


def test_workers_bring_errors_back_by_name_and_step(index: ShardIndex) -> None:
    for workers in (0, 2):
        got = []
        with pytest.raises(DataError, match="step five"):
            for step in batches(index, transform=fails_at_five, workers=workers):
                got.append(step)
        assert got == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_keeps_every_other_pair_in_its_place(tmp_path: Path, workers: int) -> None:
    index = make_shards(tmp_path)
    before = take(batches(index), 10)
    flip_byte(index, 1, 2)
    flip_byte(index, 3, 0)
    stream = batches(index, workers=workers, damaged_limit=2)
    after = take(stream, 10)
    assert [len(queries) for _, queries in after] == [BATCH] * 10
    flat = [[query for _, queries in run for query in queries] for run in (before, after)]
    changed = sum(a != b for a, b in zip(*flat, strict=True))
    assert changed == 16
    assert stream.skipped == {"shard-00001.tar": 1, "shard-00003.tar": 1}


def test_past_the_limit_of_damage_the_stream_stops(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    flip_byte(index, 1, 2)
    flip_byte(index, 3, 0)
    with pytest.raises(DataError, match="at most 1 damaged blocks"):
        take(batches(index, damaged_limit=1), 10)


def test_the_limit_counts_what_all_workers_met(tmp_path: Path) -> None:
    # One block fills one batch: each of the two workers meets one damaged block, and neither alone is past the limit.
    index = make_shards(tmp_path)
    order = GlobalOrder.of_one_source(index.block_sizes, seed=3, batch_size=8, lanes=1)
    for step in range(2):
        _, shard, block, _ = order.rows(step, 0, 1)[0].tolist()
        flip_byte(index, shard, block)
    stream = batches(index, batch_size=8, lanes=1, workers=2, damaged_limit=1)
    with pytest.raises(DataError, match="at most 1 damaged blocks"):
        take(stream, 2)
    assert sum(stream.skipped.values()) == 2


def test_a_tiny_data_set_with_one_lane(tmp_path: Path) -> None:
    index = make_shards(tmp_path, count=30, block_pairs=256, shard_pairs=256)
    seen = [query for _, queries in take(batches(index, batch_size=16, lanes=1), 15) for query in queries]
    assert sorted(seen) == sorted(f"question {i}" for i in range(30) for _ in range(8))


def test_impossible_numbers_are_refused_before_anything_is_read(index: ShardIndex) -> None:
    with pytest.raises(RecipeError, match="3 lanes for batches of 20"):
        batches(index, lanes=3)
    with pytest.raises(DataError, match="50 lanes over 25 blocks"):
        batches(index, lanes=50, batch_size=100)
    with pytest.raises(DataError, match="has no index"):
        PairBatches(index.folder / "x", batch_size=4, lanes=1, seed=0, rank=0, world_size=1, transform=named)


def test_no_block_is_read_twice_while_a_lane_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of 16 and 8 pairs, and 5 rows of each lane in a batch: lanes leave their blocks in different batches.
    index = make_shards(tmp_path, count=960, shard_pairs=40, block_pairs=16)
    read = []
    read_block = reading.read_block

    def counting(place: Any, name: str, block: Any) -> list[Pair]:
        read.append((name, *block.tolist()))
        return read_block(place, name, block)

    monkeypatch.setattr(reading, "read_block", counting)
    take(batches(index, batch_size=60, lanes=12), 15)
    assert len(read) == len(set(read))


def test_lanes_of_unequal_length_are_said(tmp_path: Path) -> None:
    # Ten blocks on four lanes: two or three for each.
    index = make_shards(tmp_path, count=80, shard_pairs=40, block_pairs=8)
    [line] = batches(index, lanes=4).uneven_lanes
    assert f"{index.place}: its 4 lanes hold 16 to 24 pairs" in line
    assert batches(index, lanes=5).uneven_lanes == []
