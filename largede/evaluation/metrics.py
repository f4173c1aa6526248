"""Measures per query, as trec_eval computes them, and how sure their means are.

Which queries count: those with at least one relevant document in the qrels. A query for which nothing was found
counts as zero; a query without relevant documents is left out, for no list could be better
than another on it. (pytrec_eval alone gives zero to the latter, and nothing at all to the former.)
"""

import re
from dataclasses import dataclass

import numpy as np

from largede.errors import DataError
from largede.retrieval.corpus import Qrels
from largede.retrieval.runs import Run

MEASURES = ("nDCG@10", "Recall@100", "MRR@10")

RESAMPLES = 10_000

PerQuery = dict[str, dict[str, float]]
"""Measure to query id to value, the queries in the order of the qrels."""


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval (percentiles of resampled means)."""

    mean: float
    low: float
    high: float

    @property
    def side(self) -> str:
        """Which side of zero the whole interval lies on: above, below, or across."""
        return "above" if self.low > 0 else "below" if self.high < 0 else "across"


def per_query(run: Run, qrels: Qrels, measures: tuple[str, ...] = MEASURES) -> PerQuery:
    """Every measure of every query that counts. Raises DataError for an unknown measure, or when none counts."""
    import pytrec_eval

    names = {measure: _trec_name(measure) for measure in measures}
    judged = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    if not judged:
        raise DataError(
            f"{len(qrels)} judged queries, none with a relevant document",
            expected="grades above zero in the qrels",
            mend="check the third column of the qrels file, or give another --split",
        )
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {asked for asked, _, _ in names.values()})
    values: PerQuery = {measure: dict.fromkeys(judged, 0.0) for measure in measures}
    for query in judged:
        if query in run and len(run[query]):
            # One query at a time: the dictionaries that trec_eval needs are large.
            found = evaluator.evaluate({query: run[query].scored()})[query]
            for measure, (_, answer, cut) in names.items():
                values[measure][query] = _truncated(found[answer], measure, cut)
    return values


def mean(values: dict[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else 0.0


def intervals(values_NM: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> list[Interval]:
    """Mean and interval of each of M columns over the same N queries.

    All columns see the same resamples, so a column of differences is a paired bootstrap. The same seed and N draw the
    same resamples.
    """
    bounds = np.percentile(_resampled_means(values_NM, seed, resamples), [2.5, 97.5], axis=0)
    means = values_NM.mean(axis=0)
    return [Interval(float(m), float(low), float(high)) for m, low, high in zip(means, *bounds, strict=True)]


def interval(values: dict[str, float], seed: int = 0) -> Interval:
    """The interval of one measure of one system."""
    return intervals(np.array(list(values.values()))[:, None], seed)[0]


def paired_difference(one: dict[str, float], other: dict[str, float], seed: int = 0) -> Interval:
    """Mean of one minus other over the same queries; queries are resampled in pairs."""
    if one.keys() != other.keys():
        raise DataError(
            "two systems measured on different queries",
            expected="the same queries for both",
            mend="evaluate both runs with the same qrels",
        )
    return interval({query: one[query] - other[query] for query in one}, seed)


def _resampled_means(values_NM: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means (resamples, M) over N rows drawn with replacement."""
    rng = np.random.default_rng(seed)
    n = len(values_NM)
    at_once = max(1, 4_000_000 // n)
    blocks = []
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        # How often each query was drawn serves all columns at once.
        times_drawn = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        blocks.append(times_drawn.astype(np.float64) @ values_NM / n)
    return np.concatenate(blocks)


_NAMES = {"nDCG": "ndcg_cut", "Recall": "recall", "P": "P", "Success": "success", "MAP": "map_cut", "MRR": "recip_rank"}


def _trec_name(measure: str) -> tuple[str, str, int]:
    """What to ask trec_eval for, the key of its answer, and the cut."""
    found = re.fullmatch(r"(\w+)@(\d+)", measure)
    if not found or found[1] not in _NAMES or int(found[2]) < 1:
        raise DataError(
            f"the measure {measure!r}",
            expected=", ".join(f"{name}@k" for name in _NAMES),
            mend="write it as in nDCG@10",
        )
    name, cut = _NAMES[found[1]], int(found[2])
    return (name, name, cut) if name == "recip_rank" else (f"{name}.{cut}", f"{name}_{cut}", cut)


def _truncated(value: float, measure: str, cut: int) -> float:
    """trec_eval has no cut for the reciprocal rank: a first relevant document below the cut counts nothing."""
    return 0.0 if measure.startswith("MRR") and value * cut < 1 - 1e-9 else value
