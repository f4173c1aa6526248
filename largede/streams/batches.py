"""This rank's rows of global batch t, tokenised and prefetched, for t = start, start + 1, ... without end."""

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from largede.config.batch import BatchPlan
from largede.errors import LargedeError
from largede.streams.index import ShardIndex
from largede.streams.lanes import SourceLanes
from largede.streams.order import GlobalOrder
from largede.streams.pair import Pair
from largede.streams.places.place import Place
from largede.streams.read import BlockId, BlockReader, demand_within_limit
from largede.streams.sources import Mixing, Source, fingerprint_of_sources, order_of_sources

T = TypeVar("T")

UNEVEN = 1.1
"""Lanes give equally many rows, so this many times more pairs in one make its pairs come that much less often."""

_BY_SIZE = Mixing()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared(Generic[T]):
    """One step's value, or the error that prevented it, and the damaged blocks met so far, source by source."""

    value: T | None
    damaged: list[dict[BlockId, str]]
    error: LargedeError | None = None


@dataclass(frozen=True)
class RankStream(Generic[T]):
    """What one rank reads; travels to the loader's workers, which open their own files."""

    sources: Sequence[Source]
    order: GlobalOrder
    rows: range
    transform: Callable[..., T]
    damaged_limit: int

    def prepare(self, readers: Sequence[BlockReader], step: int) -> Prepared[T]:
        """Batch `step` of this rank. Errors of the data travel as values: a worker would strip them of their type."""
        value, failure = None, None
        try:
            rows = self.order.rows(step, self.rows.start, self.rows.stop)
            pairs = pairs_of_rows(readers, rows)
            value = self.transform(pairs, step, *([rows[:, 0]] if len(self.sources) > 1 else []))
        except LargedeError as error:
            failure = error
        return Prepared(value, [dict(reader.damaged) for reader in readers], failure)

    def steps(self, first: int, stride: int) -> Iterator[Prepared[T]]:
        """Steps first, first + stride, ... without end, or up to the first error."""
        readers = self._readers()
        with ExitStack() as closing:
            for source in self.sources:
                closing.callback(source.index.place.close)
            prepared = self.prepare(readers, first)
            while prepared.error is None:
                yield prepared
                first += stride
                prepared = self.prepare(readers, first)
            yield prepared

    def _readers(self) -> list[BlockReader]:
        sources = zip(self.sources, self.order.sources, self.order.table.most_rows_S.tolist(), strict=True)
        return [
            BlockReader(source.index, damaged_limit=self.damaged_limit, cache_blocks=self._blocks_read(walk, rows))
            for source, walk, rows in sources
        ]

    def _blocks_read(self, walk: SourceLanes, rows: int) -> int:
        """The most blocks that a step of this rank touches, where a batch has `rows` rows of the source.

        A lane goes on in the block it was in, so that block must outlive all others of the step in the cache.
        """
        lanes = min(walk.lanes, walk.lanes * len(self.rows) // self.order.batch_size + 2)
        blocks_ended_by_lane = rows * walk.blocks // (walk.samples * walk.lanes) + 1
        return lanes * (1 + blocks_ended_by_lane)


def pairs_of_rows(readers: Sequence[BlockReader], rows: NDArray[np.int64]) -> list[Pair]:
    """The pairs at `rows`, int64 [n, 4] of (source, shard, block in shard, row in block), in that order."""
    if len(readers) == 1:
        return readers[0].pairs(rows[:, 1:])
    places = [np.flatnonzero(rows[:, 0] == source) for source in range(len(readers))]
    found = [reader.pairs(rows[of_source, 1:]) for reader, of_source in zip(readers, places, strict=True)]
    by_place = dict(zip(np.concatenate(places).tolist(), itertools.chain(*found), strict=True))
    return [by_place[place] for place in range(len(rows))]


class PairBatches(Generic[T]):
    """An endless iterable over this rank's part of batches `start_step`, `start_step` + 1, ...

    The sequence is a function of (data, seed, batch_size, lanes, rank, world_size, step). Neither `workers` nor where
    an earlier run stopped changes it, and the ranks' parts of one step, joined, are the same for every `world_size`.

    `data` is the place of the shards, or the sources of a mixture. `transform(pairs, step)` makes what the trainer
    wants of a list of pairs (tokens); in a mixture it is `transform(pairs, step, sources)`, with the number of each
    pair's source. With `workers` > 0 it runs in that many processes, worker k preparing steps start + k, start + k +
    workers, ...; with 0 it runs inline. Damaged blocks are replaced (`streams.read`) and counted in `skipped`; above
    `damaged_limit` of one source (met by this rank) the iterator raises DataError.
    """

    def __init__(
        self,
        data: Place | Path | Sequence[Source],
        *,
        batch_size: int,
        lanes: int,
        seed: int,
        rank: int,
        world_size: int,
        transform: Callable[..., T],
        mixing: Mixing = _BY_SIZE,
        start_step: int = 0,
        workers: int = 0,
        damaged_limit: int = 0,
    ) -> None:
        self.sources = list(data) if isinstance(data, Sequence) else [Source("", ShardIndex.load(data))]
        order = order_of_sources(self.sources, mixing, seed, batch_size, lanes)
        rows = BatchPlan(batch_size, world_size).rows(rank)
        self._stream = RankStream(self.sources, order, rows, transform, damaged_limit)
        self._start_step = start_step
        self._workers = workers
        self._damaged: list[dict[BlockId, str]] = [{} for _ in self.sources]

    @property
    def samples(self) -> int:
        """Pairs in the data."""
        return self._stream.order.samples

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the pairs, their places and how they are mixed."""
        return fingerprint_of_sources(self.sources, self._stream.order)

    @property
    def skipped(self) -> dict[str, int]:
        """Damaged blocks met so far, by shard name, which in a mixture starts with the source's name."""
        return dict(
            Counter(
                "/".join(filter(None, (source.name, source.index.shards[shard].name)))
                for source, damaged in zip(self.sources, self._damaged, strict=True)
                for shard, _ in damaged
            )
        )

    def epoch_of(self, step: int) -> float:
        """Passes over the data finished before `step`, as a fraction."""
        return self._stream.order.epochs(step)

    def epochs_of_sources(self, step: int) -> dict[str, float]:
        """The same for each source of a mixture, by name; empty without one."""
        epochs = zip(self.sources, self._stream.order.epochs_of_sources(step), strict=True)
        return {source.name: passes for source, passes in epochs if len(self.sources) > 1}

    @property
    def uneven_lanes(self) -> list[str]:
        """A line for each source of whose lanes the longest has over a tenth more pairs than the shortest."""
        lines = []
        for source, walk in zip(self.sources, self._stream.order.sources, strict=True):
            least, most = min(walk.lane_samples), max(walk.lane_samples)
            if most > UNEVEN * least:
                lines.append(
                    f"{source.index.place}: its {walk.lanes} lanes hold {least:,} to {most:,} pairs and each give as "
                    "many rows, so pairs of the short ones come more often; fewer data.lanes or smaller --block-pairs "
                    "help"
                )
        return lines

    @property
    def shares(self) -> dict[str, float]:
        """The share of the rows that each source of a mixture gives, by name; empty without one."""
        rows_S = self._stream.order.table.count_PS.sum(axis=0)
        shares = zip(self.sources, (rows_S / rows_S.sum()).tolist(), strict=True)
        return {source.name: share for source, share in shares if len(self.sources) > 1}

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

    def _note_damage(self, found: list[dict[BlockId, str]]) -> None:
        for source, known, damaged in zip(self.sources, self._damaged, found, strict=True):
            for place in damaged.keys() - known.keys():
                known[place] = damaged[place]
                name = source.index.place.where(source.index.shards[place[0]].name)
                log.warning("%s block %d %s: its rows are replaced", name, place[1], damaged[place])
            # Each worker knows only what it met itself, so the limit is asked again over all of them.
            demand_within_limit(source.index, known, self._stream.damaged_limit)
