"""Batches of a small set of shards, whole and by ranks, to compare one place with another."""

from itertools import islice
from pathlib import Path
from typing import Any

from largede.streams.batches import PairBatches
from largede.streams.pair import Pair
from largede.streams.places.place import Place

BATCH = 20
STEPS = 12

Batch = tuple[int, list[str]]


def named(pairs: list[Pair], step: int) -> Batch:
    return step, [pair.query for pair in pairs]


def batches(place: Place | Path, **changes: Any) -> PairBatches[Batch]:
    settings = {"batch_size": BATCH, "lanes": 4, "seed": 3, "rank": 0, "world_size": 1, "transform": named}
    return PairBatches(place, **{**settings, **changes})


def take(stream: PairBatches[Batch], count: int = STEPS) -> list[Batch]:
    steps = iter(stream)
    try:
        return list(islice(steps, count))
    finally:
        steps.close()


def joined(place: Place | Path, world_size: int, **changes: Any) -> list[Batch]:
    """The first batches, put together from what each rank reads."""
    parts = [take(batches(place, rank=rank, world_size=world_size, **changes)) for rank in range(world_size)]
    return [(step, [query for part in parts for query in part[step][1]]) for step in range(STEPS)]
