"""Whether one system is better than another, or the queries were kind: paired tests over the same queries.

Two p values, both two-sided: of the paired bootstrap (the share of resampled means on the other side of zero, twice;
it is below 0.05 where the 95 % interval leaves zero out) and of Student's paired t-test. Both take the queries for a
sample of those that might have been asked. Holm's correction is for the reader who looks at many differences at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from largede.errors import DataError
from largede.evaluation.measures.metrics import RESAMPLES, Interval, resampled_means

_EQUAL = 1e-12
"""Figures lie between 0 and 1: what differs less is the same figure, computed otherwise."""


@dataclass(frozen=True)
class Difference(Interval):
    """A mean difference, its 95 % bootstrap interval, and how likely one as large is between equal systems."""

    p_bootstrap: float
    p_t: float


def compare(one: Mapping[str, float], other: Mapping[str, float], seed: int = 0) -> Difference:
    """One minus other, by query id. Raises DataError when they are not measured on the same queries."""
    return differences(_paired(one, other)[:, None], seed)[0]


def differences(difference_NM: np.ndarray, seed: int = 0) -> list[Difference]:
    """Each of M columns of differences over the same N queries; all columns see the same resamples."""
    means_RM = resampled_means(difference_NM, seed, RESAMPLES)
    return [
        _difference(column_N.mean(), means_R, _p_of_t(column_N), most=len(column_N))
        for column_N, means_R in zip(difference_NM.T, means_RM.T, strict=True)
    ]


def compare_collections(
    one: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]], seed: int = 0
) -> Difference:
    """The mean over collections of each one's mean difference, collection to query to value.

    Queries are resampled within each collection (a stratified bootstrap), so each collection counts the same however
    many queries it has. The t-test is Welch's for a sum of independent means. This says how sure the mean over these
    collections is; of other collections it says nothing.
    Raises DataError when the collections or their queries differ.
    """
    if one.keys() != other.keys() or not one:
        raise DataError(
            "two systems measured on different collections",
            expected="the same collections for both",
            mend="evaluate both on the same data",
        )
    differences_CN = [_paired(one[name], other[name])[:, None] for name in one]
    return differences_over_collections(differences_CN, seed)[0]


def differences_over_collections(collections: Sequence[np.ndarray], seed: int = 0) -> list[Difference]:
    """The same for M columns at once: a matrix (N, M) of differences for each collection, N its queries."""
    # A seed of its own for each: collections of equally many queries would otherwise be resampled alike.
    means_RM = np.mean(
        [resampled_means(found_NM, (seed, place), RESAMPLES) for place, found_NM in enumerate(collections)], axis=0
    )
    mean_M = np.mean([found_NM.mean(axis=0) for found_NM in collections], axis=0)
    most = max(map(len, collections))
    return [
        _difference(mean_M[m], means_RM[:, m], _p_of_welch([found_NM[:, m] for found_NM in collections]), most=most)
        for m in range(len(mean_M))
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of m p values, in their order: below 0.05 each holds with all the others.

    The smallest is multiplied by m, the next by m - 1, and so on; none ends below one that was smaller before, or
    above 1 (Holm 1979).
    """
    assert all(0 <= p <= 1 for p in p_values), p_values
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for done, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - done) * p_values[place]))
        corrected[place] = highest
    return corrected


def _paired(one: Mapping[str, float], other: Mapping[str, float]) -> np.ndarray:
    """Differences (N,), in the order of `one`."""
    if one.keys() != other.keys() or not one:
        raise DataError(
            "two systems measured on different queries",
            expected="the same queries for both, and at least one",
            mend="evaluate both runs with the same qrels",
        )
    return np.array([one[query] - other[query] for query in one])


def _difference(mean: float, means_R: np.ndarray, p_t: float, most: int) -> Difference:
    """`most`: how many queries were resampled together at most; one alone is always the same, and says nothing."""
    low, high = np.percentile(means_R, [2.5, 97.5])
    # Counting the observed mean as one of the resamples keeps p above zero.
    tails = [1 + int(np.count_nonzero(tail)) for tail in (means_R <= _EQUAL, means_R >= -_EQUAL)]
    p_bootstrap = min(1.0, 2 * min(tails) / (len(means_R) + 1)) if most > 1 else 1.0
    return Difference(float(mean), float(low), float(high), p_bootstrap, p_t)


def _p_of_t(difference_N: np.ndarray) -> float:
    """Of the paired t-test. Differences that are all alike have no spread to test against: 0, or 1 when all are 0."""
    from scipy.stats import ttest_rel

    if np.ptp(difference_N) < _EQUAL:
        return _p_without_spread(difference_N.mean(), len(difference_N))
    return float(ttest_rel(difference_N, np.zeros_like(difference_N)).pvalue)


def _p_of_welch(columns: Sequence[np.ndarray]) -> float:
    from scipy.stats import t

    mean = np.mean([column_N.mean() for column_N in columns])
    spread = [(len(c), c.var(ddof=1) / len(c) / len(columns) ** 2) for c in columns if np.ptp(c) >= _EQUAL]
    if not spread:
        return _p_without_spread(float(mean), max(map(len, columns)))
    variance = sum(v for _, v in spread)
    freedom = variance**2 / sum(v**2 / (n - 1) for n, v in spread)
    return float(2 * t.sf(abs(mean) / variance**0.5, freedom))


def _p_without_spread(mean: float, queries: int) -> float:
    """One query says nothing, however large its difference."""
    return 1.0 if queries < 2 or abs(mean) < _EQUAL else 0.0
