"""The lanes of one source of pairs: where pair number n of the source lies. Arithmetic only, no files.

Pair n is a function of (block sizes, seed, lanes L, n); batches, ranks, workers and restarts do not enter.

- A unit is a shard, or a block when there are fewer than `SHARDS_PER_LANE` shards for each lane.
- Each lane owns a fixed set of units, dealt largest first to the lane with the fewest pairs, ties in a seeded order.
- Pair n is at position floor(n/L) of lane n mod L.
- A lane walks its pairs again and again. In each of its own epochs units, blocks inside a unit, and rows inside a block
  come in a new seeded order. Lanes need not be equally long: each wraps by itself.
- No block is split between lanes, so there are at most as many lanes as blocks.

A walk needs the totals of a lane's units; the blocks of a shard are looked at when the walk enters it. So a jump to any
place costs as much over two billion pairs as it does over their shards.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from largede.streams.shuffle import permutation, random_keys

# With whole shards as units lanes differ by one shard at most: 16 shards each keep that within about 6 %.
SHARDS_PER_LANE = 16

Sizes = Sequence[int] | NDArray[np.unsignedinteger] | NDArray[np.signedinteger]


@dataclass(frozen=True, eq=False)
class Walk:
    """Numbered pieces in the order of a walk, the pairs passed at the end of each, and the lane's epoch it is of."""

    epoch: int
    pieces: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def shuffled(cls, pieces: NDArray[np.int64], sizes: NDArray[np.int64], epoch: int, *seed: int | str) -> "Walk":
        order = np.argsort(random_keys(pieces, *seed, epoch))
        return cls(epoch, pieces[order], np.cumsum(sizes[order]))

    def find(self, offset: int) -> tuple[int, int]:
        """The piece that holds pair `offset` of the walk, and that pair's place inside it."""
        place = int(np.searchsorted(self.ends, offset, side="right"))
        return int(self.pieces[place]), offset - (int(self.ends[place - 1]) if place else 0)


@dataclass(frozen=True, eq=False)
class Stay:
    """A lane's positions [first, end), all in one block, and the rows of that block in their order."""

    first: int
    end: int
    shard: int
    block: int
    rows: NDArray[np.int64]


class SourceLanes:
    """Where the pairs of one source lie, by number. Holds a number for each unit, and the shards its lanes are in."""

    def __init__(
        self, block_sizes: Sequence[Sizes], seed: int | str, lanes: int, shard_samples: Sequence[int] | None = None
    ) -> None:
        """`block_sizes[s][b]` is the number of pairs in block b of shard s, `shard_samples[s]` their sum if known."""
        blocks_per_shard = np.array([len(sizes) for sizes in block_sizes], dtype=np.int64)
        self.blocks = int(blocks_per_shard.sum())
        assert 1 <= lanes <= self.blocks, "lanes are chosen where the shards are known"
        self.seed, self.lanes = seed, lanes
        self._block_sizes = block_sizes
        self._first_block_of_shard = np.cumsum(blocks_per_shard) - blocks_per_shard
        self._units_are_blocks = len(block_sizes) < SHARDS_PER_LANE * lanes
        self._unit_sizes = self._sizes_of_units(shard_samples)
        self._lane_units = self._deal_units()
        self.lane_samples = tuple(int(self._unit_sizes[units].sum()) for units in self._lane_units)
        self.samples = sum(self.lane_samples)
        self._units_walked: dict[int, Walk] = {}
        self._blocks_walked: dict[int, tuple[int, Walk]] = {}
        self._stays: dict[int, Stay] = {}

    def rows(self, first: int, count: int, start: int, stop: int) -> NDArray[np.int64]:
        """Pairs `first` to `first + count - 1` sorted by lane; of those the ones in places [start, stop).

        int64 [stop - start, 3] of (shard, block in shard, row in block).
        """
        lane_L = np.arange(self.lanes)
        # Numbers from `first` on until the lane's turn comes.
        until_turn_L = (lane_L - first) % self.lanes
        count_L = (count - until_turn_L + self.lanes - 1) // self.lanes
        end_L = np.cumsum(count_L)
        found = np.empty((stop - start, 3), dtype=np.int64)
        for lane in np.flatnonzero((end_L > start) & (end_L - count_L < stop)).tolist():
            begin = int(end_L[lane] - count_L[lane])
            here = range(max(start, begin), min(stop, int(end_L[lane])))
            position = (first + int(until_turn_L[lane])) // self.lanes + here.start - begin
            self._walk(lane, position, found[here.start - start : here.stop - start])
        return found

    def _walk(self, lane: int, position: int, found: NDArray[np.int64]) -> None:
        """Fill `found` with the pairs of a lane from `position` on, counted since the beginning."""
        done = 0
        while done < len(found):
            stay = self._stay(lane, position)
            rows = stay.rows[position - stay.first :][: len(found) - done]
            piece = found[done : done + len(rows)]
            piece[:, 0], piece[:, 1], piece[:, 2] = stay.shard, stay.block, rows
            position, done = position + len(rows), done + len(rows)

    def _stay(self, lane: int, position: int) -> Stay:
        # Kept, because a lane stays in a block for as many steps as the block has times the rows of one step.
        stay = self._stays.get(lane)
        if stay is None or not stay.first <= position < stay.end:
            stay = self._stays[lane] = self._located(lane, position)
        return stay

    def _located(self, lane: int, position: int) -> Stay:
        """The block that position `position` of the lane is in."""
        epoch, offset = divmod(position, self.lane_samples[lane])
        unit, offset = self._units_of(lane, epoch).find(offset)
        block, offset = self._blocks_of(lane, epoch, unit).find(offset)
        shard = int(np.searchsorted(self._first_block_of_shard, block, side="right")) - 1
        inside = block - int(self._first_block_of_shard[shard])
        size = int(self._block_sizes[shard][inside])
        rows = permutation(size, "rows", self.seed, epoch, block)
        return Stay(position - offset, position - offset + size, shard, inside, rows)

    def _units_of(self, lane: int, epoch: int) -> Walk:
        kept = self._units_walked.get(lane)
        if kept is None or kept.epoch != epoch:
            units = self._lane_units[lane]
            kept = Walk.shuffled(units, self._unit_sizes[units], epoch, "units", self.seed)
            self._units_walked[lane] = kept
        return kept

    def _blocks_of(self, lane: int, epoch: int, unit: int) -> Walk:
        if self._units_are_blocks:
            return Walk(epoch, np.array([unit]), self._unit_sizes[unit : unit + 1])
        kept_unit, kept = self._blocks_walked.get(lane, (None, None))
        if kept is None or (kept_unit, kept.epoch) != (unit, epoch):
            sizes = np.asarray(self._block_sizes[unit], dtype=np.int64)
            blocks = self._first_block_of_shard[unit] + np.arange(len(sizes))
            kept = Walk.shuffled(blocks, sizes, epoch, "blocks", self.seed)
            self._blocks_walked[lane] = unit, kept
        return kept

    def _sizes_of_units(self, shard_samples: Sequence[int] | None) -> NDArray[np.int64]:
        if self._units_are_blocks:
            return np.concatenate([np.asarray(sizes, dtype=np.int64) for sizes in self._block_sizes])
        if shard_samples is None:
            shard_samples = [int(np.sum(sizes)) for sizes in self._block_sizes]
        return np.array(shard_samples, dtype=np.int64)

    def _deal_units(self) -> list[NDArray[np.int64]]:
        """The units of each lane, ascending."""
        keys = random_keys(np.arange(len(self._unit_sizes)), "lanes", self.seed)
        lane_of_unit = np.empty(len(self._unit_sizes), dtype=np.int64)
        loads = [(0, lane) for lane in range(self.lanes)]
        for unit in np.lexsort((keys, -self._unit_sizes)).tolist():
            load, lane = loads[0]
            lane_of_unit[unit] = lane
            heapq.heapreplace(loads, (load + int(self._unit_sizes[unit]), lane))
        by_lane = np.argsort(lane_of_unit, kind="stable")
        return np.split(by_lane, np.cumsum(np.bincount(lane_of_unit, minlength=self.lanes))[:-1])
