"""How much each source gives to each batch: weights, and a seeded table of P batches that repeats.

The table is made once from (weights, B, P, seed). A source's position before batch t is arithmetic on it: floor(t/P)
times its total, and what the table gave it up to t mod P.

Mixed batches: over a period every source gets its exact share of P·B rows, rounded to whole rows by largest remainder;
in each batch it gets its share rounded down or up. Single-source batches: the same with whole batches.

Shapes: P batches of a period, S sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from largede.config.recipe import Batches
from largede.errors import RecipeError
from largede.streams.shuffle import permutation


@dataclass(frozen=True, eq=False)
class PeriodTable:
    """`count_PS` (P, S): the rows of each source in each batch of the period."""

    count_PS: NDArray[np.int64]

    @property
    def period(self) -> int:
        return len(self.count_PS)

    @cached_property
    def batch_size(self) -> int:
        return int(self.count_PS[0].sum())

    @cached_property
    def _before_PS(self) -> NDArray[np.int64]:
        """(P + 1, S): rows of each source before each batch of the period, and in all of it."""
        return np.concatenate([np.zeros_like(self.count_PS[:1]), np.cumsum(self.count_PS, axis=0)])

    def numbers(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Batch `step` holds, of each source, the pairs from number `first_S` on, `count_S` of them."""
        periods, inside = divmod(step, self.period)
        return periods * self._before_PS[-1] + self._before_PS[inside], self.count_PS[inside]

    @property
    def fewest_rows_S(self) -> NDArray[np.int64]:
        """The fewest rows of each source in a batch that has any of it."""
        return np.where(self.count_PS > 0, self.count_PS, self.batch_size).min(axis=0)

    @property
    def most_rows_S(self) -> NDArray[np.int64]:
        """The most rows of each source in any batch."""
        return self.count_PS.max(axis=0)


def shares_of(sizes: Sequence[int], weights: Sequence[float | None], temperature: float) -> list[Fraction]:
    """Each source's share of the rows: by `weights` where given (all or none are), else size ** (1 / temperature)."""
    given = [weight for weight in weights if weight is not None]
    if len(given) == len(sizes):
        parts = [Fraction(weight) for weight in given]
    elif temperature == 1.0:
        parts = [Fraction(size) for size in sizes]
    else:
        parts = [Fraction(float(size) ** (1.0 / temperature)) for size in sizes]
    return [part / sum(parts) for part in parts]


def apportioned(shares: Sequence[Fraction], total: int) -> NDArray[np.int64]:
    """`total` in whole numbers by `shares`: rounded down, the rest to the largest remainders, ties to the first."""
    exact = [share * total for share in shares]
    whole = [int(part) for part in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: total - sum(whole)]:
        whole[i] += 1
    return np.array(whole, dtype=np.int64)


def period_table(
    names: Sequence[str], shares: Sequence[Fraction], batch_size: int, period: int, batches: Batches, seed: int
) -> PeriodTable:
    """The table of a mixture. Raises RecipeError when a source's share is less than one row, or batch, of it."""
    pieces = period * batch_size if batches == "mixed" else period
    total_S = apportioned(shares, pieces)
    if not total_S.all():
        lost = names[int(np.argmin(total_S))]
        raise RecipeError(
            f"source {lost} gets nothing of {pieces:,} {'rows' if batches == 'mixed' else 'batches'}, one period",
            expected="a share that shows within a period for every source",
            mend="raise its weight or data.mixing_period, or leave the source out",
        )
    order_P = permutation(period, "period", seed)
    if batches == "mixed":
        return PeriodTable(_mixed(total_S, order_P))
    return PeriodTable(_single_source(total_S, order_P) * batch_size)


def _mixed(total_S: NDArray[np.int64], order_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows (P, S) with these totals, in every batch a source's share rounded down or up, and equally many in all.

    What rounding down leaves over is laid out source after source and dealt to the batches in `order_P`, round and
    round: a source leaves fewer than P rows, so no batch gets two of one source, and the deal ends with a full round.
    """
    P = len(order_P)
    count_PS = np.tile(total_S // P, (P, 1))
    source_of_extra = np.repeat(np.arange(len(total_S)), total_S % P)
    np.add.at(count_PS, (order_P[np.arange(len(source_of_extra)) % P], source_of_extra), 1)
    return count_PS


def _single_source(total_S: NDArray[np.int64], order_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """One-hot (P, S): the source of each batch, in a seeded order."""
    source_P = np.empty_like(order_P)
    source_P[order_P] = np.repeat(np.arange(len(total_S)), total_S)
    return np.eye(len(total_S), dtype=np.int64)[source_P]
