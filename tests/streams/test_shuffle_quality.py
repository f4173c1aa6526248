"""How good the shuffle is, beside a full shuffle; and that a broken one would be noticed.

Shuffling while sharding makes batches that no statistic here tells from a full shuffle. The order alone, over shards
that were not shuffled, cannot: a lane is inside one block at a time, so B/L rows of a batch are neighbours in the dump.
"""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_tools.shard import ShardSettings, shard
from largede.streams import lanes as lanes_module
from largede.streams.batches import PairBatches
from largede.streams.order import GlobalOrder
from largede.streams.pair import Pair

SHARDS, BLOCKS, ROWS, LANES, BATCH = 64, 8, 16, 2, 64
PAIRS = SHARDS * BLOCKS * ROWS
SEEDS = range(25)
TOPICS = 16

Ints = NDArray[np.int64]


def walked(seed: int, epoch: int) -> Ints:
    """Positions (pairs, 3) of one epoch in the order they are read: shard, block, row."""
    order = GlobalOrder.of_one_source([[ROWS] * BLOCKS] * SHARDS, seed, BATCH, LANES)
    steps = range(epoch * PAIRS // BATCH, (epoch + 1) * PAIRS // BATCH)
    return np.concatenate([order.rows(step, 0, BATCH)[:, 1:] for step in steps])


def in_dump(places: Ints) -> Ints:
    """The place in the dump, where shards were cut from it without a shuffle."""
    return (places[:, 0] * BLOCKS + places[:, 1]) * ROWS + places[:, 2]


def correlation(first: Ints, second: Ints) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def surprise(counts_BT: Ints) -> float:
    """Chi-square of a table of batches x topics, in standard deviations from what a full shuffle gives on average."""
    expected_BT = counts_BT.sum(1, keepdims=True) * counts_BT.sum(0, keepdims=True) / counts_BT.sum()
    freedom = (counts_BT.shape[0] - 1) * (counts_BT.shape[1] - 1)
    return float((((counts_BT - expected_BT) ** 2 / expected_BT).sum() - freedom) / np.sqrt(2 * freedom))


def topics_by_batch(topics: Ints, batch: int = BATCH) -> Ints:
    whole = topics[: len(topics) // batch * batch].reshape(-1, batch)
    return np.stack([np.bincount(row, minlength=TOPICS) for row in whole])


def same_topic_share(topics: Ints, batch: int = BATCH) -> float:
    """Of two rows of a batch, how often both have one topic."""
    counts_BT = topics_by_batch(topics, batch)
    return float((counts_BT * (counts_BT - 1)).sum(1).mean() / (batch * (batch - 1)))


def level_correlations(seed: int) -> dict[str, float]:
    """Per level, between the order in one epoch and in the next, and between an epoch and the dump.

    Lanes are looked at one by one: batches take from them in turn.
    """
    found: dict[str, list[float]] = {}
    epochs = [walked(seed, epoch) for epoch in (0, 1)]
    for lane in range(LANES):
        share = BATCH // LANES
        own = [e.reshape(-1, BATCH, 3)[:, lane * share : (lane + 1) * share].reshape(-1, 3) for e in epochs]
        for level, (one, two) in levels(*own):
            found.setdefault(f"{level} between epochs", []).append(correlation(ranks_of(one), ranks_of(two)))
            found.setdefault(f"{level} against the dump", []).append(correlation(one, np.arange(len(one))))
    return {name: float(np.mean(values)) for name, values in found.items()}


def levels(first: Ints, second: Ints) -> Iterator[tuple[str, tuple[Ints, Ints]]]:
    """Numbers in the order they come: of a lane's shards, of one shard's blocks, of one block's rows."""
    yield "shards", (seen(first[:, 0]), seen(second[:, 0]))
    chosen = int(first[0, 0])
    yield "blocks", (seen(first[first[:, 0] == chosen, 1]), seen(second[second[:, 0] == chosen, 1]))
    rows = [walk[(walk[:, 0] == chosen) & (walk[:, 1] == 0), 2] for walk in (first, second)]
    yield "rows", (rows[0], rows[1])


def seen(numbers: Ints) -> Ints:
    """Distinct numbers in the order of their first appearance."""
    _, places = np.unique(numbers, return_index=True)
    return numbers[np.sort(places)]


def ranks_of(numbers: Ints) -> Ints:
    """When each number came, by number."""
    return np.argsort(numbers)


def mean_correlations() -> dict[str, float]:
    found = [level_correlations(seed) for seed in SEEDS]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


SAMPLES_OF_LEVEL = {"shards": SHARDS // LANES, "blocks": BLOCKS, "rows": ROWS}


def remembered() -> list[str]:
    """Levels whose order shows a memory of the dump or of the epoch before, beyond four standard deviations."""
    deviations = {
        name: abs(value) * np.sqrt(len(SEEDS) * LANES * (SAMPLES_OF_LEVEL[name.split()[0]] - 1))
        for name, value in mean_correlations().items()
    }
    return [name for name, deviation in deviations.items() if deviation > 4]


def test_shards_blocks_and_rows_come_without_memory_of_the_dump_or_of_the_epoch_before() -> None:
    assert remembered() == []


Keys = Callable[..., NDArray[np.uint64]]


@pytest.mark.parametrize("level", ["units", "blocks", "rows"])
def test_an_order_that_leaves_one_level_unshuffled_is_noticed(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = lanes_module.random_keys
    as_they_are: Keys = lambda numbers, *seed: numbers if seed[0] == level else keys(numbers, *seed)  # noqa: E731
    monkeypatch.setattr(lanes_module, "random_keys", as_they_are)
    if level == "rows":
        monkeypatch.setattr(lanes_module, "permutation", lambda count, *seed: np.arange(count))
    name = "shards" if level == "units" else level
    assert remembered() == [f"{name} between epochs", f"{name} against the dump"]


def test_an_order_that_is_the_same_in_every_epoch_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = lanes_module.random_keys
    same: Keys = lambda numbers, *seed: keys(numbers, *seed[:2])  # noqa: E731
    monkeypatch.setattr(lanes_module, "random_keys", same)
    assert remembered() == ["shards between epochs", "blocks between epochs"]


@pytest.fixture(scope="module")
def sorted_dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump sorted by topic, one after another."""
    path = tmp_path_factory.mktemp("dump") / "sorted.jsonl"
    pairs = [Pair(f"question {i} of {i * TOPICS // PAIRS}", f"answer {i}") for i in range(PAIRS)]
    path.write_text("".join(json.dumps(pair.to_dict()) + "\n" for pair in pairs))
    return path


def numbers_of(pairs: list[Pair], step: int) -> list[int]:
    return [int(pair.query.split()[1]) for pair in pairs]


def read_epoch(dump: Path, seed: int) -> Ints:
    """Numbers in the dump, in the order a run sees them, after sharding with the global shuffle."""
    index = shard([dump], dump.parent / f"shards-{seed}", ShardSettings(256, 16, seed=seed)).index
    stream = PairBatches(index.folder, batch_size=BATCH, lanes=2, seed=seed, rank=0, world_size=1, transform=numbers_of)
    return np.concatenate(list(islice(stream, PAIRS // BATCH)))


def test_a_sorted_dump_that_was_sharded_gives_batches_like_a_full_shuffle(sorted_dump: Path) -> None:
    full = [np.random.default_rng(seed).permutation(PAIRS) for seed in range(3)]
    ours = [read_epoch(sorted_dump, seed) for seed in range(3)]
    for order in (*full, *ours):
        topics = order * TOPICS // PAIRS
        assert len(np.unique(order)) > 0.98 * PAIRS  # lanes of unequal length wrap a little apart
        assert abs(surprise(topics_by_batch(topics))) < 4
        # Two pairs that follow each other in the dump meet in a batch as often as chance has it: about once per 128.
        gaps = np.diff(np.sort(order.reshape(-1, BATCH)), axis=1)
        neighbours, expected = int((gaps == 1).sum()), PAIRS * (BATCH - 1) / (PAIRS - 1)
        assert abs(neighbours - expected) < 4 * np.sqrt(expected)
        for lag in (1, 2, 16, BATCH, 8 * BATCH):
            assert abs(correlation(order[:-lag], order[lag:])) < 4 / np.sqrt(PAIRS)
        assert abs(correlation(order, np.arange(PAIRS))) < 4 / np.sqrt(PAIRS)


def test_without_the_shuffle_of_sharding_neighbours_share_batches_as_lanes_predict() -> None:
    topics = [in_dump(walked(seed, 0)) * TOPICS // PAIRS for seed in range(8)]
    surprises = [surprise(topics_by_batch(t)) for t in topics]
    assert min(surprises) > 100  # the very statistic that passes above
    # Rows of one lane are of one block, hence of one topic; of two lanes by chance.
    share = BATCH // LANES
    same_lane = (share - 1) / (BATCH - 1)
    predicted = same_lane + (1 - same_lane) / TOPICS
    assert np.mean([same_topic_share(t) for t in topics]) == pytest.approx(predicted, abs=0.05)


@pytest.mark.parametrize(("lanes", "expected"), [(2, 0.47), (8, 0.11), (32, 0.02)])
def test_more_lanes_mix_an_unshuffled_dump_better(lanes: int, expected: float) -> None:
    def excess(seed: int) -> float:
        order = GlobalOrder.of_one_source([[ROWS] * BLOCKS] * SHARDS, seed, BATCH, lanes)
        read = np.concatenate([order.rows(step, 0, BATCH)[:, 1:] for step in range(PAIRS // BATCH)])
        share, chance = same_topic_share(in_dump(read) * TOPICS // PAIRS), 1 / TOPICS
        return (share - chance) / (1 - chance)

    assert np.mean([excess(seed) for seed in range(4)]) == pytest.approx(expected, abs=0.05)
