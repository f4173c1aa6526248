"""Measures per query, as `trec_eval -c` computes them, and how sure their means are.

Every judged query counts. One for which nothing was found counts as zero, and so does one without a relevant document,
as in trec_eval, BEIR and MTEB. The library under this, pytrec_eval, is trec_eval 9.0.8 itself. It is not asked for
queries without a positive grade: where all are below zero, trec_eval reads memory that is not its own (seen to crash).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from largede.errors import DataError
from largede.retrieval.corpus import Qrels
from largede.retrieval.runs import Ranking, Run

MEASURES = ("nDCG@10", "Recall@100", "MRR@10")

RESAMPLES = 10_000

Seed = int | Sequence[int]

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


def per_query(run: Run, qrels: Qrels, measures: Sequence[str] = MEASURES, relevant_from: int = 1) -> PerQuery:
    """Every measure of every judged query, in the order of the qrels.

    Args:
        run: rankings in trec_eval's order; queries that are not judged are passed over, and an empty run is all zeros.
        qrels: a grade below zero is one that was not given, as in trec_eval.
        measures: nDCG, MAP and MRR over whole lists, and these, Recall, P and Success at a cut, as in nDCG@10.
        relevant_from: the lowest grade that is relevant to all measures but nDCG, whose gain is the grade itself.
    Raises:
        DataError: an unknown measure, no relevant document at all, no query in common, a ranking with a document twice
            or with a score that is not finite.
    """
    import pytrec_eval

    asked = {measure: _trec_name(measure) for measure in measures}
    check_qrels(qrels, relevant_from)
    _check_common(run, qrels)
    graded = {query: grades for query, grades in qrels.items() if max(grades.values(), default=0) > 0}
    evaluator = pytrec_eval.RelevanceEvaluator(graded, {name.asked for name in asked.values()}, relevant_from)
    values: PerQuery = {measure: dict.fromkeys(qrels, 0.0) for measure in measures}
    for query in graded:
        if query in run and len(run[query]):
            # One query at a time: the dictionaries that trec_eval needs are large.
            found = evaluator.evaluate({query: _scored(query, run[query])})[query]
            for measure, name in asked.items():
                values[measure][query] = _cut_off(found[name.answered], name)
    return values


def mean(values: dict[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else 0.0


def intervals(values_NM: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> list[Interval]:
    """Mean and interval of each of M columns over the same N queries.

    All columns see the same resamples, so a column of differences is a paired bootstrap. The same seed and N draw the
    same resamples.
    """
    bounds = np.percentile(resampled_means(values_NM, seed, resamples), [2.5, 97.5], axis=0)
    means = values_NM.mean(axis=0)
    return [Interval(float(m), float(low), float(high)) for m, low, high in zip(means, *bounds, strict=True)]


def interval(values: dict[str, float], seed: int = 0) -> Interval:
    """The interval of one measure of one system."""
    return intervals(np.array(list(values.values()))[:, None], seed)[0]


def resampled_means(values_NM: np.ndarray, seed: Seed, resamples: int) -> np.ndarray:
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


HIGHEST_GRADE = 1_000
"""trec_eval's time for nDCG grows with the square of the highest grade, and its memory with the grade."""


def check_qrels(qrels: Qrels, relevant_from: int, of: str = "") -> None:
    """Raise DataError for judgements that nothing can be measured by; `of` says whose they are."""
    whose = f"{of}: " if of else ""
    if relevant_from < 1:
        raise DataError(
            f"documents relevant from grade {relevant_from}",
            expected="a grade of 1 or more",
            mend="give the lowest grade that counts as relevant; 1 in most collections",
        )
    highest = max((grade for grades in qrels.values() for grade in grades.values()), default=0)
    if highest < relevant_from:
        raise DataError(
            f"{whose}{len(qrels)} judged queries, none with a relevant document (the highest grade is {highest})",
            expected=f"grades of {relevant_from} or more in the qrels",
            mend="check the grades in the qrels file and the lowest that counts as relevant, or give another --split",
        )
    if highest > HIGHEST_GRADE:
        raise DataError(
            f"{whose}a grade of {highest:,} in the qrels",
            expected=f"grades of at most {HIGHEST_GRADE:,}",
            mend="check that the last column holds grades",
        )


def _check_common(run: Run, qrels: Qrels) -> None:
    if run and run.keys().isdisjoint(qrels):
        raise DataError(
            f"no query of the run is judged (it has {next(iter(run))!r}, the qrels {next(iter(qrels))!r})",
            expected="a run and qrels of the same queries",
            mend="check that both are of the same collection and split",
        )


def _scored(query: str, ranking: Ranking) -> dict[str, float]:
    """What trec_eval wants; it stops the process at a document that is there twice, a dictionary would hide it."""
    scored = ranking.scored()
    if len(scored) < len(ranking) or not np.isfinite(ranking.scores).all():
        what = "a document twice" if len(scored) < len(ranking) else "a score that is not finite"
        raise DataError(
            f"the ranking of query {query!r} has {what}",
            expected="each document once, with a finite score",
            mend="search again",
        )
    return scored


@dataclass(frozen=True)
class _TrecName:
    """What trec_eval is asked for, the key of its answer, and a cut that it does not know of."""

    asked: str
    answered: str
    cut: int | None = None


_WHOLE = {"nDCG": "ndcg", "MAP": "map", "MRR": "recip_rank"}
_CUT = {"nDCG": "ndcg_cut", "Recall": "recall", "P": "P", "Success": "success", "MAP": "map_cut"}


def check_measures(measures: Sequence[str], depth: int) -> None:
    """Raise DataError for an unknown measure, and for one that looks deeper than lists of `depth` documents."""
    for measure in measures:
        _trec_name(measure)
        cut = measure.rpartition("@")[2]
        if cut.isdecimal() and int(cut) > depth:
            raise DataError(
                f"{measure} of lists of {depth:,} documents",
                expected=f"lists of {int(cut):,} at least",
                mend=f"give --depth {cut}, or other --measures",
            )


def _trec_name(measure: str) -> _TrecName:
    found = re.fullmatch(r"(\w+)(?:@([1-9]\d{0,8}))?", measure)
    name, cut = found.groups() if found else ("", None)
    if cut is None and name in _WHOLE:
        return _TrecName(_WHOLE[name], _WHOLE[name])
    if cut is not None and name in _CUT:
        return _TrecName(f"{_CUT[name]}.{cut}", f"{_CUT[name]}_{cut}")
    if cut is not None and name == "MRR":
        return _TrecName("recip_rank", "recip_rank", int(cut))
    raise DataError(
        f"the measure {measure!r}",
        expected=f"{', '.join(_WHOLE)}, or at a cut of 1 or more {', '.join(f'{name}@k' for name in [*_CUT, 'MRR'])}",
        mend="write it as in nDCG@10",
    )


def _cut_off(value: float, name: _TrecName) -> float:
    """trec_eval has no cut for the reciprocal rank: a first relevant document below the cut counts nothing."""
    return 0.0 if name.cut is not None and value * name.cut < 1 - 1e-9 else value
