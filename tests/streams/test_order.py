import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largede.config.batch import BatchPlan
from largede.errors import DataError, RecipeError
from largede.streams.lanes import SHARDS_PER_LANE
from largede.streams.order import GlobalOrder, most_lanes

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
