import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largede.config.batch import BatchPlan
from largede.errors import DataError, RecipeError
from largede.streams.lanes import SHARDS_PER_LANE
from largede.streams.order import GlobalOrder, most_lanes
from largede.streams.shuffle import permutation, random_keys

Place = tuple[int, int, int]

BLOCKS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=40)


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[list[int]], int, int, int]:
    """(block sizes, seed, batch size, lanes)"""
    sizes = draw(BLOCKS)
    lanes = draw(st.integers(1, min(4, sum(map(len, sizes)))))
    return sizes, draw(st.integers(0, 2**63)), lanes * draw(st.integers(1, 6)), lanes


def one_source(block_sizes: list[list[int]], seed: int, batch_size: int, lanes: int) -> GlobalOrder:
    return GlobalOrder.of_one_source(block_sizes, seed, batch_size, lanes)


def places(order: GlobalOrder, step: int, start: int = 0, stop: int | None = None) -> list[Place]:
    rows = order.rows(step, start, order.batch_size if stop is None else stop)
    return [tuple(row) for row in rows[:, 1:].tolist()]


class PlainOrder:
    """The twin: all blocks of all lanes sorted at once, every lane written out pair by pair."""

    def __init__(self, sizes: list[list[int]], seed: int, batch_size: int, lanes: int) -> None:
        self.seed, self.share = seed, batch_size // lanes
        shards = [(shard, inside, size) for shard, blocks in enumerate(sizes) for inside, size in enumerate(blocks)]
        few = len(sizes) < SHARDS_PER_LANE * lanes
        blocks = [
            (number if few else shard, number, shard, inside, size)
            for number, (shard, inside, size) in enumerate(shards)
        ]
        sizes_of_units: dict[int, int] = {}
        for unit, _, _, _, size in blocks:
            sizes_of_units[unit] = sizes_of_units.get(unit, 0) + size
        dealt: list[set[int]] = [set() for _ in range(lanes)]
        for unit in sorted(sizes_of_units, key=lambda unit: (-sizes_of_units[unit], key_of(unit, "lanes", seed))):
            loads = [sum(sizes_of_units[u] for u in units) for units in dealt]
            dealt[loads.index(min(loads))].add(unit)
        self.lanes = [[block for block in blocks if block[0] in units] for units in dealt]

    def epoch(self, lane: int, epoch: int) -> list[Place]:
        def keys(block: tuple[int, ...]) -> tuple[int, int]:
            return key_of(block[0], "units", self.seed, epoch), key_of(block[1], "blocks", self.seed, epoch)

        return [
            (shard, inside, row)
            for _, number, shard, inside, size in sorted(self.lanes[lane], key=keys)
            for row in permutation(size, "rows", self.seed, epoch, number).tolist()
        ]

    def places(self, step: int) -> list[Place]:
        rows = []
        for lane in range(len(self.lanes)):
            walk: list[Place] = []
            epoch = 0
            while len(walk) < (step + 1) * self.share:
                walk += self.epoch(lane, epoch)
                epoch += 1
            rows += walk[step * self.share : (step + 1) * self.share]
        return rows


def key_of(number: int, *seed: int | str) -> int:
    return int(random_keys(np.array([number]), *seed)[0])


@settings(max_examples=60, deadline=None)
@given(orders(), st.integers(0, 12))
def test_the_walk_by_units_is_that_of_sorting_everything(
    case: tuple[list[list[int]], int, int, int], step: int
) -> None:
    assert places(one_source(*case), step) == PlainOrder(*case).places(step)


def test_a_walk_looks_at_the_blocks_of_no_other_shard() -> None:
    looked_at = []

    class Blocks(list[int]):
        def __init__(self, shard: int) -> None:
            super().__init__([8] * 6)
            self.shard = shard

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
            looked_at.append(self.shard)
            return np.array(list(self), dtype=dtype)

    order = GlobalOrder.of_one_source([Blocks(shard) for shard in range(64)], 3, 8, 2, [48] * 64)
    rows = order.rows(1234, 0, 8)
    assert looked_at and set(looked_at) == set(rows[:, 1].tolist())
    # The plain way to the same rows, without totals, looks at every shard.
    assert np.array_equal(one_source([[8] * 6] * 64, 3, 8, 2).rows(1234, 0, 8), rows)


def lane_walk(order: GlobalOrder, lane: int, steps: int) -> list[Place]:
    share = order.batch_size // order.sources[0].lanes
    return [place for step in range(steps) for place in places(order, step, lane * share, (lane + 1) * share)]


@settings(max_examples=60, deadline=None)
@given(orders(), st.integers(0, 50))
def test_every_world_size_sees_one_sequence(case: tuple[list[list[int]], int, int, int], step: int) -> None:
    sizes, seed, batch, lanes = case
    whole = places(one_source(sizes, seed, batch, lanes), step)
    for world_size in range(1, min(9, batch) + 1):
        joined = []
        for rank in range(world_size):
            rows = BatchPlan(batch, world_size).rows(rank)
            joined += places(one_source(sizes, seed, batch, lanes), step, rows.start, rows.stop)
        assert joined == whole


@settings(max_examples=60, deadline=None)
@given(orders())
def test_lanes_share_out_the_data_and_give_each_pair_once_an_epoch(case: tuple[list[list[int]], int, int, int]) -> None:
    sizes, seed, batch, lanes = case
    order = one_source(sizes, seed, batch, lanes)
    share = batch // lanes
    everything = []
    for lane, length in enumerate(order.sources[0].lane_samples):
        walk = lane_walk(order, lane, -(-3 * length // share))
        epochs = [walk[e * length : (e + 1) * length] for e in range(3)]
        assert all(len(set(epoch)) == length for epoch in epochs)
        assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
        if length > 12:
            assert epochs[0] != epochs[1] != epochs[2]
        everything += epochs[0]
    shards = enumerate(sizes)
    assert sorted(everything) == [(s, b, r) for s, blocks in shards for b, n in enumerate(blocks) for r in range(n)]


@settings(max_examples=60, deadline=None)
@given(orders(), st.integers(0, 200))
def test_a_jump_lands_where_walking_arrives(case: tuple[list[list[int]], int, int, int], step: int) -> None:
    walked = one_source(*case)
    for earlier in range(step):
        walked.rows(earlier, 0, walked.batch_size)
    assert places(walked, step) == places(one_source(*case), step)


def test_the_order_never_changes() -> None:
    # A run resumed with another version of largede must see the same batches: these digests are a promise.
    few_shards = one_source([[4, 7, 3], [5, 5], [1, 9, 2]], seed=11, batch_size=8, lanes=2)
    many_shards = one_source([[3 + s % 4, 2] for s in range(40)], seed=5, batch_size=12, lanes=2)
    assert digest(few_shards, 20) == "e7a33f2f3bd555b8218b4ecea5345d33f1df98e58545e308e6fb8db21f1b03c3"
    assert digest(many_shards, 40) == "0b88cb28c2553ea06a6ef65a1332c5caf0899d11dcf3c235b69dad69c1806332"


def digest(order: GlobalOrder, steps: int) -> str:
    rows = np.concatenate([order.rows(step, 0, order.batch_size)[:, 1:] for step in range(steps)])
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def test_with_many_shards_a_lane_stays_in_a_shard_until_it_is_done() -> None:
    order = one_source([[4, 4, 4]] * (2 * SHARDS_PER_LANE), seed=1, batch_size=8, lanes=2)
    shards = [shard for shard, _, _ in lane_walk(order, 0, 3 * SHARDS_PER_LANE)]
    changes = sum(a != b for a, b in zip(shards, shards[1:], strict=False))
    assert changes == SHARDS_PER_LANE - 1


def test_lanes_are_balanced_to_the_largest_unit() -> None:
    order = one_source([[100, 3, 50, 20, 9, 41, 77, 12]], seed=3, batch_size=3, lanes=3)
    assert max(order.sources[0].lane_samples) - min(order.sources[0].lane_samples) <= 12
    assert sum(order.sources[0].lane_samples) == order.samples == 312


def test_seeds_give_different_orders() -> None:
    sizes = [[30, 30, 30]]
    assert len({tuple(places(one_source(sizes, seed, 30, 1), 0)) for seed in range(20)}) == 20


def test_a_tiny_data_set_fills_large_batches() -> None:
    order = one_source([[10]], seed=0, batch_size=16, lanes=1)
    assert sorted(places(order, 0)[:10]) == [(0, 0, row) for row in range(10)]
    assert order.epochs(5) == 8.0


def test_an_epoch_of_a_lane_costs_no_step_through_its_pairs() -> None:
    # Two billion pairs: anything that walked over them would not end.
    order = one_source([[10**6] * 20] * 100, seed=0, batch_size=64, lanes=4)
    assert order.rows(10**9, 0, 64).shape == (64, 4)


def test_more_lanes_than_blocks_names_the_most_possible() -> None:
    with pytest.raises(DataError) as raised:
        one_source([[10, 10], [10, 10, 10]], seed=0, batch_size=16, lanes=8)
    assert raised.value.given == "8 lanes over 5 blocks of pairs"
    assert "set data.lanes to 4" in raised.value.mend
    one_source([[10, 10], [10, 10, 10]], seed=0, batch_size=16, lanes=most_lanes(5, 16))


@pytest.mark.parametrize(("batch", "lanes"), [(16, 3), (0, 1), (16, 0)])
def test_lanes_must_divide_the_batch(batch: int, lanes: int) -> None:
    with pytest.raises(RecipeError, match=f"{lanes} lanes for batches of {batch} pairs"):
        one_source([[10] * 50], seed=0, batch_size=batch, lanes=lanes)


def test_no_data_is_refused() -> None:
    with pytest.raises(DataError, match="without blocks"):
        one_source([], seed=0, batch_size=4, lanes=1)
