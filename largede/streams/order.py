"""The global order: which row of which block is row i of batch t. Arithmetic only, no files.

The order is a function of (block sizes, seed, batch size B, lanes L, step t); ranks, workers and restarts do not enter.

- A unit is a shard, or a block when there are fewer than `SHARDS_PER_LANE` shards for each lane.
- Each lane owns a fixed set of units, dealt largest first to the lane with the fewest pairs, ties in a seeded order.
- Row i of batch t is taken from lane floor(iL/B); lane l gives its pairs tB/L to (t+1)B/L - 1, counted since step 0.
- A lane walks its pairs again and again. In each of its own epochs units, blocks inside a unit, and rows inside a block
  come in a new seeded order. Lanes need not be equally long: each wraps by itself, in the middle of a batch if need be.
- No block is split between lanes, so there are at most as many lanes as blocks.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from largede.errors import DataError, RecipeError
from largede.streams.shuffle import permutation, random_keys

# With whole shards as units lanes differ by one shard at most: 16 shards each keep that within about 6 %.
SHARDS_PER_LANE = 16


@dataclass(frozen=True, eq=False)
class LaneEpoch:
    """One lane's walk in one of its epochs: its blocks in order, and the pairs passed at the end of each."""

    epoch: int
    blocks: NDArray[np.int64]
    ends: NDArray[np.int64]


class GlobalOrder:
    """The order of section 7 of the design. Holds each lane's walk of the current epoch, nothing per pair."""

    def __init__(self, block_sizes: Sequence[Sequence[int]], seed: int, batch_size: int, lanes: int) -> None:
        """`block_sizes[s][b]` is the number of pairs in block b of shard s; every block holds one at least."""
        blocks_per_shard = np.array([len(sizes) for sizes in block_sizes], dtype=np.int64)
        self._sizes = np.array([size for sizes in block_sizes for size in sizes], dtype=np.int64)
        _check_numbers(len(self._sizes), batch_size, lanes)
        self.seed, self.batch_size, self.lanes = seed, batch_size, lanes
        self.samples = int(self._sizes.sum())
        self._shard_of_block = np.repeat(np.arange(len(block_sizes)), blocks_per_shard)
        self._first_block_of_shard = np.cumsum(blocks_per_shard) - blocks_per_shard
        few_shards = len(block_sizes) < SHARDS_PER_LANE * lanes
        self._unit_of_block = np.arange(len(self._sizes)) if few_shards else self._shard_of_block
        self._lane_blocks = self._deal_blocks()
        self.lane_samples = tuple(int(self._sizes[blocks].sum()) for blocks in self._lane_blocks)
        self._current: dict[int, LaneEpoch] = {}

    def rows(self, step: int, start: int, stop: int) -> NDArray[np.int64]:
        """Rows [start, stop) of batch `step`, as int64 [stop - start, 3] of (shard, block in shard, row in block)."""
        share = self.batch_size // self.lanes
        pieces = [np.empty((0, 3), dtype=np.int64)]
        for lane in range(start // share, -(-stop // share)):
            first, last = max(start, lane * share), min(stop, (lane + 1) * share)
            pieces += self._walk(lane, step * share + first - lane * share, last - first)
        return np.concatenate(pieces)

    def epochs(self, step: int) -> float:
        """Passes over the data finished before batch `step`, as a fraction; lanes differ a little around it."""
        return step * self.batch_size / self.samples

    def _walk(self, lane: int, position: int, count: int) -> list[NDArray[np.int64]]:
        """`count` pairs of a lane from `position` on, counted since step 0; one array for each block touched."""
        pieces = []
        while count > 0:
            epoch, offset = divmod(position, self.lane_samples[lane])
            walk = self._lane_epoch(lane, epoch)
            place = int(np.searchsorted(walk.ends, offset, side="right"))
            block = int(walk.blocks[place])
            size = int(self._sizes[block])
            first = offset - (int(walk.ends[place]) - size)
            rows = permutation(size, "rows", self.seed, epoch, block)[first : first + count]
            pieces.append(self._located(block, rows))
            position, count = position + len(rows), count - len(rows)
        return pieces

    def _located(self, block: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        shard = self._shard_of_block[block]
        inside = block - self._first_block_of_shard[shard]
        return np.stack([np.full_like(rows, shard), np.full_like(rows, inside), rows], axis=1)

    def _lane_epoch(self, lane: int, epoch: int) -> LaneEpoch:
        kept = self._current.get(lane)
        if kept is None or kept.epoch != epoch:
            kept = self._current[lane] = self._shuffled_epoch(lane, epoch)
        return kept

    def _shuffled_epoch(self, lane: int, epoch: int) -> LaneEpoch:
        blocks = self._lane_blocks[lane]
        unit_keys = random_keys(self._unit_of_block[blocks], "units", self.seed, epoch)
        block_keys = random_keys(blocks, "blocks", self.seed, epoch)
        blocks = blocks[np.lexsort((block_keys, unit_keys))]
        return LaneEpoch(epoch, blocks, np.cumsum(self._sizes[blocks]))

    def _deal_blocks(self) -> list[NDArray[np.int64]]:
        """The blocks of each lane, ascending."""
        unit_sizes = np.bincount(self._unit_of_block, weights=self._sizes).astype(np.int64)
        keys = random_keys(np.arange(len(unit_sizes)), "lanes", self.seed)
        lane_of_unit = np.empty(len(unit_sizes), dtype=np.int64)
        loads = [(0, lane) for lane in range(self.lanes)]
        for unit in np.lexsort((keys, -unit_sizes)).tolist():
            load, lane = loads[0]
            lane_of_unit[unit] = lane
            heapq.heapreplace(loads, (load + int(unit_sizes[unit]), lane))
        lane_of_block = lane_of_unit[self._unit_of_block]
        by_lane = np.argsort(lane_of_block, kind="stable")
        return np.split(by_lane, np.cumsum(np.bincount(lane_of_block, minlength=self.lanes))[:-1])


def most_lanes(blocks: int, batch_size: int) -> int:
    """The most lanes that a data set of `blocks` blocks allows: the largest divisor of `batch_size` up to `blocks`."""
    return max(lanes for lanes in range(1, min(blocks, batch_size) + 1) if batch_size % lanes == 0)


def _check_numbers(blocks: int, batch_size: int, lanes: int) -> None:
    if batch_size < 1 or lanes < 1 or batch_size % lanes:
        raise RecipeError(
            f"{lanes} lanes for batches of {batch_size} pairs",
            expected="a positive number of lanes that divides the batch",
            mend="change data.lanes or batch.queries so that one divides the other",
        )
    if not blocks:
        raise DataError("a data set without blocks", expected="one pair at least", mend="shard a file with pairs")
    if lanes > blocks:
        raise DataError(
            f"{lanes} lanes over {blocks} blocks of pairs",
            expected="at least one block for each lane",
            mend=f"set data.lanes to {most_lanes(blocks, batch_size)}, or shard again with smaller --block-pairs",
        )
