"""The global order: which pair is row i of batch t. Arithmetic only, no files.

The order is a function of (shards, seed, batch size B, lanes, weights of the sources, step t) alone. Its position is
the one integer t; ranks, workers and restarts do not enter.

- The table of the mixture gives each source its numbers in batch t, first to first + count - 1 (`streams.mixture`).
- The pairs of one source are sorted by lane (`streams.lanes`). So, where there is one source and its lanes L divide B,
  row i comes from lane floor(iL/B).
- The rows of several sources are spread evenly over the batch: row j of c has key (j + 1/2)/c. A rank holds a range of
  rows, hence about the same mix as any other, and keeps to about the same lanes of each source.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from largede.errors import DataError, RecipeError
from largede.streams.lanes import Sizes, SourceLanes
from largede.streams.mixture import PeriodTable


@dataclass(frozen=True, eq=False)
class GlobalOrder:
    """The order of section 7 of the design. `table` has a column for each source."""

    sources: Sequence[SourceLanes]
    table: PeriodTable

    @classmethod
    def of_one_source(
        cls,
        block_sizes: Sequence[Sizes],
        seed: int,
        batch_size: int,
        lanes: int,
        shard_samples: Sequence[int] | None = None,
    ) -> "GlobalOrder":
        """The order of one source, whose lanes have to divide the batch. Raises RecipeError or DataError."""
        _check_numbers(sum(map(len, block_sizes)), batch_size, lanes)
        return cls([SourceLanes(block_sizes, seed, lanes, shard_samples)], PeriodTable(np.array([[batch_size]])))

    @property
    def batch_size(self) -> int:
        return self.table.batch_size

    @property
    def samples(self) -> int:
        """Pairs in all sources."""
        return sum(source.samples for source in self.sources)

    def rows(self, step: int, start: int, stop: int) -> NDArray[np.int64]:
        """Rows [start, stop) of batch `step`: int64 [stop - start, 4] of source, shard, block in it, row in that."""
        first_S, count_S = self.table.numbers(step)
        rows = np.zeros((stop - start, 4), dtype=np.int64)
        if len(self.sources) == 1:
            rows[:, 1:] = self.sources[0].rows(int(first_S[0]), int(count_S[0]), start, stop)
            return rows
        source_B = sources_of_rows(tuple(count_S.tolist()))
        before_S, upto_S = (np.bincount(source_B[:end], minlength=len(self.sources)) for end in (start, stop))
        rows[:, 0] = source_B[start:stop]
        for number, source in enumerate(self.sources):
            if before_S[number] < upto_S[number]:
                place = (int(first_S[number]), int(count_S[number]), int(before_S[number]), int(upto_S[number]))
                rows[rows[:, 0] == number, 1:] = source.rows(*place)
        return rows

    def epochs(self, step: int) -> float:
        """Passes over all data finished before batch `step`, as a fraction; lanes differ a little around it."""
        return step * self.batch_size / self.samples

    def epochs_of_sources(self, step: int) -> list[float]:
        """The same, source by source."""
        first_S, _ = self.table.numbers(step)
        return [int(first) / source.samples for first, source in zip(first_S, self.sources, strict=True)]


@lru_cache(maxsize=64)
def sources_of_rows(counts: tuple[int, ...]) -> NDArray[np.int64]:
    """The source of each row of a batch that has `counts` rows of each, spread evenly, ties in the order of sources."""
    # Equal fractions divide to equal floats, so a tie is a tie on every machine.
    key_B = np.concatenate([(np.arange(count) + 0.5) / max(1, count) for count in counts])
    source_B = np.repeat(np.arange(len(counts)), counts)[np.argsort(key_B, kind="stable")]
    source_B.setflags(write=False)
    return source_B


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
