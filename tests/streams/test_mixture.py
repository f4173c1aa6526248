"""Mixtures: what the period table gives to each source, and the order over all of them."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_sets import flip_byte, make_shards

from largede.config.batch import BatchPlan
from largede.config.load import load_recipe
from largede.errors import DataError, RecipeError
from largede.streams import read as read_module
from largede.streams.batches import PairBatches
from largede.streams.lanes import SourceLanes
from largede.streams.mixture import PeriodTable, period_table, shares_of
from largede.streams.order import GlobalOrder, sources_of_rows
from largede.streams.pair import Pair
from largede.streams.sources import Mixing, Source, open_sources, order_of_sources

Row = tuple[int, int, int, int]
WEIGHTS = st.lists(st.floats(0.05, 20.0), min_size=1, max_size=5)
SIZES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=12)


def table_of(weights: list[float], batch: int, period: int, batches: Any = "mixed", seed: int = 0) -> PeriodTable:
    names = [f"s{i}" for i in range(len(weights))]
    return period_table(names, shares_of([1] * len(weights), weights, 1.0), batch, period, batches, seed)


@settings(max_examples=100, deadline=None)
@given(WEIGHTS, st.integers(8, 70), st.integers(300, 900), st.integers(0, 2**40))
def test_mixed_batches_keep_each_source_within_a_row_of_its_share_and_a_period_to_its_total(
    weights: list[float], batch: int, period: int, seed: int
) -> None:
    count_PS = table_of(weights, batch, period, seed=seed).count_PS
    assert (count_PS.sum(axis=1) == batch).all()
    total_S = count_PS.sum(axis=0)
    exact_S = np.array(weights) / sum(weights) * batch * period
    assert (np.abs(total_S - exact_S) < 1 + 1e-6).all()
    assert (np.abs(count_PS - total_S / period) < 1).all()


@settings(max_examples=50, deadline=None)
@given(WEIGHTS, st.integers(1, 40), st.integers(0, 2**40))
def test_single_source_batches_are_whole_and_as_many_as_weighed(weights: list[float], batch: int, seed: int) -> None:
    count_PS = table_of(weights, batch, 1000, "single_source", seed).count_PS
    assert ((count_PS == batch).sum(axis=1) == 1).all() and ((count_PS == 0).sum(axis=1) == len(weights) - 1).all()
    exact_S = np.array(weights) / sum(weights) * 1000
    assert (np.abs((count_PS > 0).sum(axis=0) - exact_S) < 1 + 1e-6).all()


@settings(max_examples=50, deadline=None)
@given(WEIGHTS, st.integers(8, 40), st.sampled_from(["mixed", "single_source"]), st.integers(0, 3000))
def test_positions_are_what_replaying_the_table_gives(
    weights: list[float], batch: int, batches: str, step: int
) -> None:
    table = table_of(weights, batch, 700, batches)
    replayed = sum((table.count_PS[t % 700] for t in range(step)), np.zeros(len(weights), dtype=np.int64))
    first_S, count_S = table.numbers(step)
    assert np.array_equal(first_S, replayed)
    assert np.array_equal(count_S, table.count_PS[step % 700])


def test_tables_are_seeded_and_promised() -> None:
    tables = [table_of([3, 1, 0.7], 10, 40, seed=seed).count_PS for seed in range(3)]
    assert not np.array_equal(tables[0], tables[1]) and not np.array_equal(tables[1], tables[2])
    # A run resumed with another version of largede must see the same batches: these are promises.
    assert tables[0].sum(axis=0).tolist() == [255, 85, 60]
    assert digest(tables[0]) == "dc92e42b1f69e30d53436a5ae90c2acc2c136caeee64c4fb4d66ef2f869c1837"
    assert (
        digest(table_of([3, 1, 0.7], 10, 40, "single_source").count_PS)
        == "ea80d05e13d7328145bddfa8cf98e2052229f0edaa8e809444253e32aa00f5cf"
    )
    mix = Mix([[[4, 7, 3], [5, 5]], [[2 + s % 3, 4] for s in range(40)]], [2, 2], [1.0, 2.0], 9, "mixed", 7)
    assert (
        digest(np.concatenate([mix.order().rows(step, 0, 9) for step in range(50)]))
        == "37cfb2badfc57cddbb6b8360d6998c13bd973dde74811fc012eead2e475556de"
    )


def digest(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def test_shares_follow_weights_sizes_or_temperature() -> None:
    sizes = [10**9, 10**6, 10**3]
    assert shares_of(sizes, [None] * 3, 1.0) == [Fraction(size, sum(sizes)) for size in sizes]
    assert shares_of(sizes, [2.0, 1.0, 1.0], 5.0) == [Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)]
    at_two = [float(share) for share in shares_of(sizes, [None] * 3, 2.0)]
    assert at_two[0] / at_two[1] == pytest.approx(10**1.5)
    assert max(shares_of(sizes, [None] * 3, 1e9)) == pytest.approx(1 / 3)


def test_a_source_that_would_get_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="source s1 gets nothing of 400 rows") as refused:
        table_of([1000.0, 0.001], 4, 100)
    assert "data.mixing_period" in refused.value.mend
    with pytest.raises(RecipeError, match="source s0 gets nothing of 100 batches"):
        table_of([0.001, 1000.0], 4, 100, "single_source")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any))
def test_any_range_of_rows_has_about_the_same_mix(counts: list[int]) -> None:
    source_B = sources_of_rows(tuple(counts))
    keys = sorted((Fraction(2 * j + 1, 2 * count), s) for s, count in enumerate(counts) for j in range(count))
    assert source_B.tolist() == [source for _, source in keys]
    for end in range(len(source_B)):
        so_far = np.bincount(source_B[:end], minlength=len(counts))
        assert (np.abs(so_far - np.array(counts) * end / len(source_B)) <= 1 + len(counts) / 2).all()


@dataclass
class Mix:
    """Settings of an order over several sources, to make it again and again."""

    sizes: list[list[list[int]]]
    lanes: list[int]
    weights: list[float]
    batch: int
    batches: str
    seed: int

    def order(self) -> GlobalOrder:
        sources = [
            SourceLanes(sizes, f"{self.seed}/{i}", lanes)
            for i, (sizes, lanes) in enumerate(zip(self.sizes, self.lanes, strict=True))
        ]
        return GlobalOrder(sources, table_of(self.weights, self.batch, 60, self.batches, self.seed))


@st.composite
def mixes(draw: st.DrawFn) -> Mix:
    sizes = draw(st.lists(SIZES, min_size=1, max_size=3))
    lanes = [draw(st.integers(1, min(4, sum(map(len, source))))) for source in sizes]
    weights = [draw(st.floats(0.3, 3.0)) for _ in sizes]
    batches = draw(st.sampled_from(["mixed", "single_source"]))
    return Mix(sizes, lanes, weights, draw(st.integers(1, 24)), batches, draw(st.integers(0, 2**63)))


def rows_of(order: GlobalOrder, step: int, start: int = 0, stop: int | None = None) -> list[Row]:
    return [tuple(row) for row in order.rows(step, start, order.batch_size if stop is None else stop).tolist()]


class Replayed:
    """The twin: pairs are taken from each source one after another, lanes in turn, from the first step on."""

    def __init__(self, mix: Mix) -> None:
        self.order = mix.order()
        self.taken = [0] * len(mix.sizes)

    def next_batch(self, step: int) -> list[Row]:
        counts = self.order.table.count_PS[step % 60].tolist()
        keyed = []
        for number, (source, count) in enumerate(zip(self.order.sources, counts, strict=True)):
            pairs = sorted((self.taken[number] + i) % source.lanes * 10**9 + i for i in range(count))
            for j, pair in enumerate(pairs):
                place = source.rows(self.taken[number] + pair % 10**9, 1, 0, 1)[0].tolist()
                keyed.append(((Fraction(2 * j + 1, 2 * count), number), (number, *place)))
            self.taken[number] += count
        return [row for _, row in sorted(keyed, key=lambda item: item[0])]


@settings(max_examples=25, deadline=None)
@given(mixes())
def test_the_order_of_a_mixture_is_that_of_taking_pair_after_pair(mix: Mix) -> None:
    replayed = Replayed(mix)
    for step in range(70):
        assert replayed.next_batch(step) == rows_of(mix.order(), step)


@settings(max_examples=40, deadline=None)
@given(mixes(), st.integers(0, 500))
def test_every_world_size_sees_one_mixture(mix: Mix, step: int) -> None:
    whole = rows_of(mix.order(), step)
    for world_size in range(1, min(9, mix.batch) + 1):
        plan = BatchPlan(mix.batch, world_size)
        parts = [rows_of(mix.order(), step, plan.rows(r).start, plan.rows(r).stop) for r in range(world_size)]
        assert sum(parts, []) == whole


@settings(max_examples=25, deadline=None)
@given(mixes())
def test_each_source_gives_every_pair_once_an_epoch_of_its_lanes(mix: Mix) -> None:
    order = mix.order()
    seen = Counter(row for step in range(120) for row in rows_of(order, step))
    for number, source in enumerate(order.sources):
        taken = int(order.table.numbers(120)[0][number])
        # Lane l has given this many pairs; each of its own is seen as often as it wrapped, or once more.
        given_by_lane = [len(range(lane, taken, source.lanes)) for lane in range(source.lanes)]
        times = [given // length for given, length in zip(given_by_lane, source.lane_samples, strict=True)]
        counts = [count for row, count in seen.items() if row[0] == number]
        assert sum(counts) == taken
        assert all(min(times) <= count <= max(times) + 1 for count in counts)
        if min(times) > 0:
            assert len(counts) == source.samples


def test_one_source_in_a_mixture_is_today_s_order() -> None:
    # Lanes that divide the batch: pair n is from lane n mod L, and sorting by lane makes lanes contiguous again.
    sizes = [[3 + s % 4, 2] for s in range(40)]
    plain = GlobalOrder.of_one_source(sizes, 5, 12, 2)
    mixed = GlobalOrder([SourceLanes(sizes, 5, 2)], table_of([1.0], 12, 30))
    assert all(np.array_equal(plain.rows(step, 0, 12), mixed.rows(step, 0, 12)) for step in range(100))


def test_a_rank_keeps_to_its_part_of_each_source_s_lanes() -> None:
    sources = [SourceLanes([[4] * 50] * 40, f"0/{i}", 8) for i in range(2)]
    order = GlobalOrder(sources, table_of([2.7, 1.3], 64, 100))
    lane_of = [lane_of_block(source) for source in sources]
    for rank in range(4):
        rows = BatchPlan(64, 4).rows(rank)
        read = np.concatenate([order.rows(step, rows.start, rows.stop) for step in range(60)]).tolist()
        for source in range(2):
            lanes = {lane_of[source][shard, block] for s, shard, block, _ in read if s == source}
            # A quarter of 8 lanes, and neighbours at both ends.
            assert lanes <= {2 * rank - 1, 2 * rank, 2 * rank + 1, 2 * rank + 2}


def lane_of_block(source: SourceLanes) -> dict[tuple[int, int], int]:
    count = source.lanes * source.samples
    rows = source.rows(0, count, 0, count)  # sorted by lane, equally many of each
    return {(shard, block): i // source.samples for i, (shard, block, _) in enumerate(rows.tolist())}


def named(pairs: list[Pair], step: int, sources: np.ndarray) -> tuple[int, list[str]]:
    return step, [f"{source}: {pair.query}" for source, pair in zip(sources.tolist(), pairs, strict=True)]


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    big, small = tmp_path_factory.mktemp("big"), tmp_path_factory.mktemp("small")
    return [
        Source("big", make_shards(big, 400, block_pairs=4)),
        Source("small", make_shards(small, 30, block_pairs=4)),
    ]


def batches(sources: list[Source], **changes: Any) -> PairBatches[Any]:
    settings = {"batch_size": 20, "lanes": 4, "seed": 3, "rank": 0, "world_size": 1, "transform": named}
    return PairBatches(sources, mixing=Mixing(period=25), **{**settings, **changes})


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 3])
def test_batches_of_a_mixture_are_the_same_everywhere_and_after_a_stop(
    two_sources: list[Source], world_size: int, workers: int
) -> None:
    whole = list(islice(batches(two_sources), 12))
    parts = [
        list(islice(batches(two_sources, rank=r, world_size=world_size, workers=workers, start_step=4), 8))
        for r in range(world_size)
    ]
    assert [(4 + i, sum((part[i][1] for part in parts), [])) for i in range(8)] == whole[4:]


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 3), (1, 3), (2, 3)])
@pytest.mark.parametrize(("mixed", "batch"), [(True, 20), (True, 40), (False, 20), (False, 40)])
def test_a_reader_opens_each_block_once_a_pass(
    two_sources: list[Source], rank: int, world_size: int, mixed: bool, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counter[int]()
    decode = read_module.decode_block

    def counted(data: bytes, samples: int) -> list[Pair]:
        read[hash(data)] += 1
        return decode(data, samples)

    monkeypatch.setattr(read_module, "decode_block", counted)
    sources = two_sources if mixed else two_sources[:1]
    changes = {"batch_size": batch, "rank": rank, "world_size": world_size}
    stream = batches(sources, transform=lambda *given: None, **changes)
    # No lane comes to its second epoch: a block read twice would have fallen out of the cache too early.
    steps = 360 // batch
    rows = BatchPlan(batch, world_size).rows(rank)
    seen = [stream._stream.order.rows(step, rows.start, rows.stop) for step in range(steps)]
    list(islice(stream, steps))
    assert set(read.values()) == {1}
    assert len(read) == len(np.unique(np.concatenate(seen)[:, :3], axis=0))


def test_passes_over_sources_are_counted_apart(two_sources: list[Source]) -> None:
    stream = batches(two_sources)
    rows = Counter(name.partition(":")[0] for _, names in islice(stream, 50) for name in names)
    assert stream.epochs_of_sources(50) == {"big": rows["0"] / 400, "small": rows["1"] / 30}
    # By size: one pass over everything is about one pass over each.
    assert stream.epoch_of(50) == 1000 / 430
    assert stream.epochs_of_sources(50)["small"] == pytest.approx(1000 / 430, abs=1.5 / 30)


def test_a_small_source_has_fewer_lanes_and_a_single_source_batch_all(two_sources: list[Source]) -> None:
    order = order_of_sources(two_sources, Mixing(), 0, 20, 4)
    assert [source.lanes for source in order.sources] == [4, 1]
    weighted = [Source(source.name, source.index, weight) for source, weight in zip(two_sources, (1, 9), strict=True)]
    assert [source.lanes for source in order_of_sources(weighted, Mixing(), 0, 20, 4).sources] == [2, 1]
    alone = order_of_sources(weighted, Mixing(batches="single_source"), 0, 20, 4)
    assert [source.lanes for source in alone.sources] == [4, 1]


def test_sources_of_equal_shape_are_walked_in_different_orders(two_sources: list[Source]) -> None:
    twice = [Source(name, two_sources[0].index, 1.0) for name in ("one", "two")]
    order = order_of_sources(twice, Mixing(), 0, 20, 4)
    walks = [source.rows(0, 100, 0, 100).tolist() for source in order.sources]
    assert walks[0] != walks[1]


def test_the_fingerprint_knows_sources_names_and_weights(two_sources: list[Source]) -> None:
    big, small = two_sources
    variants = [
        two_sources,
        [big],
        [big, Source("other", small.index)],
        [Source("big", big.index, 1.0), Source("small", small.index, 1.0)],
        [Source("big", big.index, 2.0), Source("small", small.index, 1.0)],
    ]
    prints = [batches(sources).fingerprint for sources in variants]
    assert len(set(prints)) == len(variants)
    assert prints[1] == big.index.fingerprint
    assert batches(two_sources).fingerprint == prints[0]
    assert batches(two_sources, seed=4).fingerprint != prints[0]


def test_damage_is_counted_by_source_and_limited_in_each(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    sources = [Source(name, make_shards(tmp_path / name, 120)) for name in ("a", "b")]
    flip_byte(sources[0].index, 1, 2)
    flip_byte(sources[1].index, 1, 2)
    stream = batches(sources, damaged_limit=1)
    assert all(len(names) == 20 for _, names in islice(stream, 15))
    assert stream.skipped == {"a/shard-00001.tar": 1, "b/shard-00001.tar": 1}
    with pytest.raises(DataError, match="at most 0 damaged blocks"):
        list(islice(batches(sources), 15))


def test_sources_of_a_recipe_open_in_the_order_of_their_names(tmp_path: Path) -> None:
    made = {name: make_shards(tmp_path, 40).folder for name in ("b", "a")}
    flags = ["--data.sources", str({name: {"shards": str(path), "weight": 2} for name, path in made.items()})]
    recipe = load_recipe("mini", [*flags, "--data.sources.a.weight", "3"])
    assert [(source.name, source.weight) for source in open_sources(recipe.data)] == [("a", 3.0), ("b", 2.0)]
    with pytest.raises(DataError, match="has no index"):
        open_sources(load_recipe("mini", [*flags, "--data.sources.a.shards", str(tmp_path)]).data)
