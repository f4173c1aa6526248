"""Measures equal trec_eval's own expected output; intervals equal what they are defined as."""

import numpy as np
import pytest
from beir_folder import shared_data

from largede.errors import DataError
from largede.evaluation.metrics import interval, intervals, mean, paired_difference, per_query
from largede.retrieval.runs import Run, rank

QRELS = {"hit": {"a": 1, "b": 0}, "missed": {"c": 2}, "barren": {"a": 0}, "low": {"k": 1}}
RUN: Run = {
    "hit": rank(["b", "a"], [2.0, 1.0], 10),
    "low": rank(list("abcdefghijkl"), [float(-i) for i in range(12)], 12),
    "unjudged": rank(["a"], [1.0], 1),
}


def test_which_queries_count() -> None:
    values = per_query(RUN, QRELS)
    assert list(values["nDCG@10"]) == ["hit", "missed", "low"]
    assert values["nDCG@10"]["missed"] == 0.0
    assert values["MRR@10"] == {"hit": 0.5, "missed": 0.0, "low": 0.0}
    assert values["Recall@100"] == {"hit": 1.0, "missed": 0.0, "low": 1.0}
    assert per_query(RUN, QRELS, ("MRR@11",))["MRR@11"]["low"] == pytest.approx(1 / 11)
    assert mean(values["Recall@100"]) == pytest.approx(2 / 3)


def test_as_trec_eval() -> None:
    """NIST's own expected figures, for its own run: ties and unsorted ranks included."""
    folder = shared_data("trec_eval")
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.test").read_text().splitlines():
        query, _, document, grade = line.split()
        qrels.setdefault(query, {})[document] = int(grade)
    lists: dict[str, dict[str, float]] = {}
    for line in (folder / "results.test").read_text().splitlines():
        query, _, document, _, score, _ = line.split()
        lists.setdefault(query, {})[document] = float(score)
    run = {query: rank(list(found), list(found.values()), len(found)) for query, found in lists.items()}
    expected = _expected(folder / "out.test.aq")
    names = {"nDCG@10": "ndcg_cut_10", "Recall@100": "recall_100", "MRR@1000": "recip_rank", "P@10": "P_10"}
    values = per_query(run, {query: qrels[query] for query in run}, tuple(names))
    for measure, name in names.items():
        found = {query: round(value, 4) for query, value in values[measure].items()}
        assert found == {query: expected[name][query] for query in found}
        assert round(mean(values[measure]), 4) == expected[name]["all"]


def _expected(path) -> dict[str, dict[str, float]]:  # type: ignore[no-untyped-def]
    figures: dict[str, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        name, query, value = line.split()
        if name in ("ndcg_cut_10", "recall_100", "recip_rank", "P_10"):
            figures.setdefault(name, {})[query] = float(value)
    return figures


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).random(400)
    found = interval({str(i): v for i, v in enumerate(values)})
    error = values.std() / np.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert found == interval({str(i): v for i, v in enumerate(values)})
    assert found != interval({str(i): v for i, v in enumerate(values)}, seed=1)


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    rng = np.random.default_rng(2)
    base = rng.random(200)
    one = {str(i): v + 0.02 for i, v in enumerate(base)}
    other = {str(i): v + 0.001 * n for i, (v, n) in enumerate(zip(base, rng.standard_normal(200), strict=True))}
    found = paired_difference(one, other)
    assert (found.side, paired_difference(other, one).side) == ("above", "below")
    assert paired_difference(one, one).side == "across"
    assert found.high - found.low < 0.1 * (interval(one).high - interval(one).low)
    together = intervals(np.array([list(one.values()), [one[q] - other[q] for q in one]]).T)
    assert together[1].low == pytest.approx(found.low)
    with pytest.raises(DataError, match="different queries"):
        paired_difference(one, {"0": 1.0})


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(DataError, match="the measure 'NDCG@ten'"):
        per_query(RUN, QRELS, ("NDCG@ten",))


def test_qrels_without_a_relevant_document_are_refused() -> None:
    from largede.evaluation.metrics import per_query

    with pytest.raises(DataError, match="none with a relevant document"):
        per_query({}, {"q": {"d": 0}})
