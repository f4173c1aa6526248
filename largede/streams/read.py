"""Blocks of pairs from shards: one seek, one read, one decompression; damage is counted and stepped over.

A damaged block must not change the shape of a batch or the place of any other pair. Its rows are therefore taken from
the next sound block (the following one in the shard, then the following shards, round to the start), row number modulo
that block's length. The substitute depends on the files alone, so every rank and every restart makes the same choice.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from largede.errors import DataError
from largede.streams.block import DamagedBlock, checksum, decode_block
from largede.streams.index import ShardIndex
from largede.streams.pair import Pair
from largede.streams.places import place_of
from largede.streams.places.place import NotThere, Place, Unreadable

# (shard, block in shard)
BlockId = tuple[int, int]


def read_block(place: Place | Path, name: str, block: NDArray[np.uint32]) -> list[Pair]:
    """The pairs of one block of the shard `name`; `block` is a row of the index.

    Raises DamagedBlock, or DataError when the shard is not there or the place lets nothing be read.
    """
    place = place_of(place) if isinstance(place, Path) else place
    offset, size, samples, expected = block.tolist()
    try:
        data = place.read(name, offset, size)
    except NotThere:
        raise DataError(
            f"{place.where(name)} is missing", expected="the shards named by the index", mend="copy the folder again"
        ) from None
    except Unreadable as problem:
        raise DamagedBlock(str(problem)) from None
    if checksum(data) != expected:
        raise DamagedBlock("does not match its checksum")
    return decode_block(data, samples)


class BlockReader:
    """Pairs by place. Keeps the last `cache_blocks` blocks."""

    def __init__(self, index: ShardIndex, *, damaged_limit: int = 0, cache_blocks: int = 16) -> None:
        self.index = index
        self.damaged: dict[BlockId, str] = {}
        self._damaged_limit = damaged_limit
        self._cache_blocks = max(1, cache_blocks)
        self._cache: OrderedDict[BlockId, list[Pair]] = OrderedDict()

    def pairs(self, rows: NDArray[np.int64]) -> list[Pair]:
        """The pairs at `rows`, int64 [n, 3] of (shard, block in shard, row in block), in that order."""
        found: list[Pair] = []
        # A lane gives many rows of one block in a row: each block is looked up once for all of them.
        begins = np.flatnonzero(np.any(rows[1:, :2] != rows[:-1, :2], axis=1)) + 1
        for run in np.split(rows, begins) if len(rows) else ():
            pairs = self._sound((int(run[0, 0]), int(run[0, 1])))
            found += map(pairs.__getitem__, (run[:, 2] % len(pairs)).tolist())
        return found

    def _sound(self, place: BlockId) -> list[Pair]:
        """The pairs of a block, or of the next sound one."""
        while True:
            pairs = self._block(place)
            if pairs is not None:
                return pairs
            place = self._following(place)

    def _block(self, place: BlockId) -> list[Pair] | None:
        """The pairs of a block, or None when it is damaged."""
        if place in self._cache:
            self._cache.move_to_end(place)
            return self._cache[place]
        if place in self.damaged:
            return None
        shard = self.index.shards[place[0]]
        try:
            pairs = read_block(self.index.place, shard.name, shard.blocks[place[1]])
        except DamagedBlock as damage:
            self._note_damage(place, str(damage))
            return None
        self._cache[place] = pairs
        if len(self._cache) > self._cache_blocks:
            self._cache.popitem(last=False)
        return pairs

    def _note_damage(self, place: BlockId, reason: str) -> None:
        self.damaged[place] = reason
        all_blocks = sum(len(shard.blocks) for shard in self.index.shards)
        demand_within_limit(self.index, self.damaged, min(self._damaged_limit, all_blocks - 1))

    def _following(self, place: BlockId) -> BlockId:
        shard, block = place
        if block + 1 < len(self.index.shards[shard].blocks):
            return shard, block + 1
        return (shard + 1) % len(self.index.shards), 0


def demand_within_limit(index: ShardIndex, damaged: dict[BlockId, str], limit: int) -> None:
    """Raise DataError naming the damaged blocks when there are more than `limit`."""
    if len(damaged) <= limit:
        return
    named = [f"{index.shards[shard].name} block {block} {why}" for (shard, block), why in sorted(damaged.items())[:5]]
    raise DataError(
        f"{index.place} has damaged blocks: " + "; ".join(named),
        expected=f"at most {limit} damaged blocks",
        mend=f"run `largede-data verify {index.place}`, restore those shards, or allow more (data.damaged_blocks)",
    )
