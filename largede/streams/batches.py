"""This rank's rows of global batch t, tokenised and prefetched, for t = start, start + 1, ... without end."""

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from largede.config.batch import BatchPlan
from largede.errors import LargedeError
from largede.streams.index import ShardIndex
from largede.streams.order import GlobalOrder
from largede.streams.pair import Pair
from largede.streams.places.place import Place
from largede.streams.read import BlockId, BlockReader, demand_within_limit

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared(Generic[T]):
    """One step's value, or the error that prevented it, and the damaged blocks its reader has met so far."""

    value: T | None
    damaged: dict[BlockId, str]
    error: LargedeError | None = None


@dataclass(frozen=True)
class RankStream(Generic[T]):
    """What one rank reads; travels to the loader's workers, which open their own files."""

    index: ShardIndex
    order: GlobalOrder
    rows: range
    transform: Callable[[list[Pair], int], T]
    damaged_limit: int

    def prepare(self, reader: BlockReader, step: int) -> Prepared[T]:
        """Batch `step` of this rank. Errors of the data travel as values: a worker would strip them of their type."""
        try:
            pairs = reader.pairs(self.order.rows(step, self.rows.start, self.rows.stop))
            return Prepared(self.transform(pairs, step), dict(reader.damaged))
        except LargedeError as error:
            return Prepared(None, dict(reader.damaged), error)

    def steps(self, first: int, stride: int) -> Iterator[Prepared[T]]:
        """Steps first, first + stride, ... without end, or up to the first error."""
        reader = BlockReader(self.index, damaged_limit=self.damaged_limit, cache_blocks=self._blocks_at_once)
        with closing(self.index.place):
            prepared = self.prepare(reader, first)
            while prepared.error is None:
                yield prepared
                first += stride
                prepared = self.prepare(reader, first)
            yield prepared

    @property
    def _blocks_at_once(self) -> int:
        """Blocks that one batch touches, at most about: each lane ends some and begins another.

        With room for fewer, those that the next batch goes on with would be dropped first and read again.
        """
        share = self.order.batch_size // self.order.lanes
        blocks = sum(len(shard.blocks) for shard in self.index.shards)
        return (len(self.rows) // share + 2) * (2 + share * blocks // self.order.samples)


class PairBatches(Generic[T]):
    """An endless iterable over this rank's part of batches `start_step`, `start_step` + 1, ...

    The sequence is a function of (data, seed, batch_size, lanes, rank, world_size, step). Neither `workers` nor where
    an earlier run stopped changes it, and the ranks' parts of one step, joined, are the same for every `world_size`.

    `transform(pairs, step)` makes what the trainer wants of a list of pairs (tokens). With `workers` > 0 it runs in
    that many processes, worker k preparing steps start + k, start + k + workers, ...; with 0 it runs inline. Damaged
    blocks are replaced (`streams.read`) and counted in `skipped`; above `damaged_limit` of them (met by this rank) the
    iterator raises DataError.
    """

    def __init__(
        self,
        place: Place | Path,
        *,
        batch_size: int,
        lanes: int,
        seed: int,
        rank: int,
        world_size: int,
        transform: Callable[[list[Pair], int], T],
        start_step: int = 0,
        workers: int = 0,
        damaged_limit: int = 0,
    ) -> None:
        self.index = ShardIndex.load(place, rank=rank, world_size=world_size)
        order = GlobalOrder(self.index.block_sizes, seed, batch_size, lanes)
        rows = BatchPlan(batch_size, world_size).rows(rank)
        self._stream = RankStream(self.index, order, rows, transform, damaged_limit)
        self._start_step = start_step
        self._workers = workers
        self._damaged: dict[BlockId, str] = {}

    @property
    def samples(self) -> int:
        """Pairs in the data."""
        return self.index.samples

    @property
    def skipped(self) -> dict[str, int]:
        """Damaged blocks met so far, by shard name."""
        return dict(Counter(self.index.shards[shard].name for shard, _ in self._damaged))

    def epoch_of(self, step: int) -> float:
        """Passes over the data finished before `step`, as a fraction."""
        return self._stream.order.epochs(step)

    def __iter__(self) -> Generator[T, None, None]:
        for prepared in self._prepared():
            self._note_damage(prepared.damaged)
            if prepared.error is not None:
                raise prepared.error
            yield prepared.value  # type: ignore[misc]  # a value is there whenever there is no error

    def _prepared(self) -> Iterator[Prepared[T]]:
        if self._workers == 0:
            return self._stream.steps(self._start_step, 1)
        from largede.streams.workers import steps_in_workers

        return steps_in_workers(self._stream.steps, self._start_step, self._workers)

    def _note_damage(self, damaged: dict[BlockId, str]) -> None:
        for place in damaged.keys() - self._damaged.keys():
            self._damaged[place] = damaged[place]
            name = self.index.shards[place[0]].name
            log.warning("%s block %d %s: its rows are replaced", name, place[1], damaged[place])
        # Each worker knows only what it met itself, so the limit is asked again over all of them.
        demand_within_limit(self.index, self._damaged, self._stream.damaged_limit)
