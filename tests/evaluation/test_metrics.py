"""Measures equal trec_eval's own expected output, and a plain twin on hostile lists; intervals are what they say."""

import re
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from beir_folder import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_measures import plain

from largede.errors import DataError
from largede.evaluation.measures.measure import measure_run
from largede.evaluation.measures.metrics import MEASURES, interval, intervals, mean, per_query
from largede.retrieval.qrels import read_qrels
from largede.retrieval.runs import Ranking, Run, rank, read_run, write_run

QRELS = {"hit": {"a": 1, "b": 0}, "missed": {"c": 2}, "barren": {"a": 0}, "low": {"k": 1}}
RUN: Run = {
    "hit": rank(["b", "a"], [2.0, 1.0], 10),
    "low": rank(list("abcdefghijkl"), [float(-i) for i in range(12)], 12),
    "unjudged": rank(["a"], [1.0], 1),
    "barren": rank(["a"], [1.0], 1),
}
ALL = (
    "nDCG",
    "MAP",
    "MRR",
    *(f"{name}@{k}" for name in ("nDCG", "Recall", "P", "Success", "MAP", "MRR") for k in (1, 3, 10)),
)


def test_which_queries_count() -> None:
    """All that are judged, as with trec_eval -c."""
    values = per_query(RUN, QRELS)
    assert values["MRR@10"] == {"hit": 0.5, "missed": 0.0, "barren": 0.0, "low": 0.0}
    assert list(values["nDCG@10"]) == list(QRELS)
    assert values["Recall@100"] == {"hit": 1.0, "missed": 0.0, "barren": 0.0, "low": 1.0}
    assert per_query(RUN, QRELS, ("MRR@11",))["MRR@11"]["low"] == pytest.approx(1 / 11)
    assert mean(values["Recall@100"]) == 0.5


# Expected figures, judgements, run, how many measures of ours are in it. What each was made with is in the Makefile of
# trec_eval: c means all judged queries, M100 the first 100 documents, l2 relevant from grade 2.
EXPECTED = {
    "out.test.aq": ("qrels.test", "results.test", 42),
    "out.test.aqc": ("qrels.test", "results.trunc", 42),
    "out.test.aqcM": ("qrels.test", "results.trunc", 42),
    "out.test.aql": ("qrels.rel_level", "results.test", 42),
    "out.test.meas_params": ("qrels.test", "results.test", 11),
    "out.comment.test": ("qrels.comment.test", "results.comment.test", 11),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_figures_of_trec_eval_itself(name: str) -> None:
    """To its four digits: every measure that we offer, of every query, and the mean."""
    folder = shared_data("trec_eval")
    qrels_name, run_name, measures = EXPECTED[name]
    expected = expected_figures(folder / name)
    assert len(expected) == measures
    qrels, run = read_qrels(folder / qrels_name), read_run(folder / run_name)
    if not name.startswith("out.test.aqc"):
        qrels = {query: grades for query, grades in qrels.items() if query in run}
    if name.endswith("M"):
        run = {query: ranking.top(100) for query, ranking in run.items()}
    values = per_query(run, qrels, tuple(expected), relevant_from=2 if name.endswith("l") else 1)
    for measure, figures in expected.items():
        ours = values[measure] | {"all": mean(values[measure])}
        assert {query: f"{ours[query]:.4f}" for query in figures} == figures, measure
        assert figures.keys() == ours.keys() or name == "out.comment.test"


def expected_figures(path: Path) -> dict[str, dict[str, str]]:
    """By our name of the measure and query: the four digits that trec_eval prints."""
    ours = {"ndcg": "nDCG", "recall": "Recall", "P": "P", "success": "Success", "map": "MAP", "recip_rank": "MRR"}
    figures: dict[str, dict[str, str]] = {}
    for line in path.read_text().splitlines():
        name, query, value = line.split()
        found = re.fullmatch(r"(ndcg|recall|P|success|map|recip_rank)(?:_cut)?(?:_(\d+))?", name)
        if found and name not in ("ndcg_cut", "map_cut"):
            measure = ours[found[1]] + (f"@{found[2]}" if found[2] else "")
            figures.setdefault(measure, {})[query] = value
    return figures


def test_comments_in_qrels_change_nothing() -> None:
    folder = shared_data("trec_eval")
    plain_qrels, commented = (read_qrels(folder / name) for name in ("qrels.test", "qrels.test.with-comments"))
    # A document's name may hold the sign of a comment.
    expected = [id_.replace("CR93E-1860", "CR#93E-1860") for id_ in plain_qrels["301"]]
    assert commented["301"] == dict(zip(expected, plain_qrels["301"].values(), strict=True))


# Few ids and few scores, so that ties, shared documents and unjudged ones are the rule.
IDS = [f"d{i}" for i in range(12)] + ["D1", "é", "zz", "d01"]
SCORES = st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-9, 1.0 + 1e-7, 0.1, 1e-42, -3.0, 1e30, 2.0**24, 2.0**24 + 1])
LISTS = st.dictionaries(st.sampled_from(IDS), SCORES, max_size=len(IDS))
GRADES = st.dictionaries(st.sampled_from(IDS), st.integers(-5, 4), min_size=1, max_size=len(IDS))
QUERIES = st.sampled_from(["q1", "q2", "q3", "q10"])


@settings(max_examples=150, deadline=None)
@given(
    lists=st.dictionaries(QUERIES, LISTS), qrels=st.dictionaries(QUERIES, GRADES, min_size=1), lowest=st.integers(1, 3)
)
def test_any_run_is_measured_as_the_plain_twin_measures_it(
    lists: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]], lowest: int
) -> None:
    run = {query: rank(list(found), list(found.values()), len(found)) for query, found in lists.items()}
    refused = max(grade for grades in qrels.values() for grade in grades.values()) < lowest
    if refused or (lists and lists.keys().isdisjoint(qrels)):
        with pytest.raises(DataError):
            per_query(run, qrels, ALL, lowest)
        return
    values = per_query(run, qrels, ALL, lowest)
    for measure, found in values.items():
        twin = {query: plain(measure, lists.get(query, {}), grades, lowest) for query, grades in qrels.items()}
        assert found == pytest.approx(twin, abs=1e-12), measure
    # The library alone, on the scores as they came: the same where it answers and knows the measure.
    asked = {
        "ndcg": "nDCG",
        "map": "MAP",
        "recip_rank": "MRR",
        "P_3": "P@3",
        "recall_3": "Recall@3",
        "ndcg_cut_3": "nDCG@3",
    }
    positive = {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
    names = {re.sub(r"_(\d)", r".\1", name) for name in asked}
    for query, answers in pytrec_eval.RelevanceEvaluator(positive, names, lowest).evaluate(lists).items():
        assert answers == pytest.approx({name: values[measure][query] for name, measure in asked.items()})


TIED = {"nDCG@10": "nDCG@10", "nDCG": "nDCG", "MAP": "AP", "MAP@20": "AP@20", "MRR": "RR", "P@5": "P@5"}
TIED |= {"Recall@50": "R@50", "Success@5": "Success@5"}


@pytest.mark.parametrize(
    ("ties", "relevant_from", "asked"),
    [
        (True, 1, TIED),
        (True, 2, {"MAP": "AP(rel=2)", "MRR": "RR(rel=2)", "Recall@50": "R(rel=2)@50", "nDCG@10": "nDCG@10"}),
        # A cut reciprocal rank comes from another provider, which puts tied documents in the opposite order.
        (False, 1, TIED | {"MRR@10": "RR@10"}),
    ],
)
def test_ir_measures_finds_the_same_in_the_files_that_we_write(
    tmp_path: Path, ties: bool, relevant_from: int, asked: dict[str, str]
) -> None:
    """Every query and the mean; two queries are not in the run, one has no relevant document."""
    rng = np.random.default_rng(0)
    ids = [f"d{i:03d}" for i in range(300)]
    qrels = {f"q{i}": {str(d): int(rng.integers(-1, 4)) for d in rng.choice(ids, 12)} | {"d007": 3} for i in range(12)}
    qrels["q3"] = {"d001": 0, "d002": -1}
    run = {}
    for query in list(qrels)[:10]:
        scores = rng.integers(0, 40, 80) * np.float32(0.3) / np.float32(7) if ties else rng.permutation(80) / 7
        run[query] = rank(rng.choice(ids, 80, replace=False).tolist(), scores, 80)
        assert (len(set(run[query].scores.tolist())) < 60) == ties
    write_run(tmp_path / "ours.trec", run, "ours")
    lines = [f"{query} 0 {d} {grade}\n" for query, grades in qrels.items() for d, grade in grades.items()]
    (tmp_path / "qrels.txt").write_text("".join(lines))
    ours = measure_run(tmp_path / "ours.trec", tmp_path / "qrels.txt", tuple(asked), relevant_from)
    judged = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt")))
    found = list(ir_measures.read_trec_run(str(tmp_path / "ours.trec")))
    for measure, name in asked.items():
        theirs, each = ir_measures.calc([ir_measures.parse_measure(name)], judged, found)
        each_of = {one.query_id: one.value for one in each}
        assert ours[measure] == pytest.approx(dict.fromkeys(qrels, 0.0) | each_of, abs=1e-9), measure
        assert mean(ours[measure]) == pytest.approx(*theirs.values()), measure
        assert 0 < mean(ours[measure]) < 1


def test_scores_that_float32_cannot_tell_apart_are_ties() -> None:
    """As trec_eval has it, which reads scores into a float: the higher id comes first, not the higher score."""
    run = {"q": rank(["a", "b"], [1.0 + 1e-9, 1.0], 2)}
    assert per_query(run, {"q": {"a": 1}}, ("MRR",))["MRR"]["q"] == 0.5


def test_grades_below_the_relevant_one_still_gain() -> None:
    qrels = {"q": {"a": 1, "b": 2, "c": -1}, "weak": {"a": 1}}
    run = {"q": rank(["a", "c", "b"], [3.0, 2.0, 1.0], 3), "weak": rank(["a"], [1.0], 1)}
    values = per_query(run, qrels, ("nDCG@10", "MRR", "MAP", "Recall@10"), relevant_from=2)
    assert values["nDCG@10"]["q"] == pytest.approx((1 + 2 / 2) / (2 + 1 / np.log2(3)))
    assert values["nDCG@10"]["weak"] == 1.0
    assert values["MRR"] == {"q": pytest.approx(1 / 3), "weak": 0.0}
    assert values["Recall@10"] == {"q": 1.0, "weak": 0.0}


def test_an_empty_run_is_all_zeros() -> None:
    assert per_query({}, QRELS, ALL) == {measure: dict.fromkeys(QRELS, 0.0) for measure in ALL}
    nothing = {"hit": Ranking((), np.empty(0, dtype=np.float32))}
    assert mean(per_query(nothing, QRELS)["nDCG@10"]) == 0.0


def test_a_measure_does_not_depend_on_what_was_measured_before() -> None:
    """Nor on queries of nothing but grades below zero, at which trec_eval crashes."""
    qrels = {"q": {"a": 3}, "none": {"a": -5}, "last": {"a": 1}}
    run = {query: rank(["a"], [1.0], 1) for query in qrels}
    worse = {query: rank(["b", "a"], [2.0, 1.0], 2) for query in qrels}
    assert per_query(run, qrels, ("nDCG@10",))["nDCG@10"] == {"q": 1.0, "none": 0.0, "last": 1.0}
    assert per_query(worse, qrels, ("MRR",))["MRR"] == {"q": 0.5, "none": 0.0, "last": 0.5}
    assert per_query(run, qrels, ("MRR",))["MRR"] == {"q": 1.0, "none": 0.0, "last": 1.0}


@pytest.mark.parametrize(
    "measure", ["NDCG@ten", "nDCG@0", "nDCG@-1", "nDCG@1.5", "Recall", "P", "MRR@", "@10", "", "F1@10"]
)
def test_an_unknown_measure_is_refused(measure: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"the measure {measure!r}")) as refused:
        per_query(RUN, QRELS, (measure,))
    assert "nDCG@k, Recall@k, P@k, Success@k, MAP@k, MRR@k" in refused.value.expected


@pytest.mark.parametrize(
    ("run", "qrels", "options", "said"),
    [
        ({}, {"q": {"d": 0}}, {}, "none with a relevant document"),
        ({}, {}, {}, "0 judged queries"),
        ({}, {"q": {"d": 1}}, {"relevant_from": 2}, "the highest grade is 1"),
        ({}, {"q": {"d": 1}}, {"relevant_from": 0}, "relevant from grade 0"),
        ({}, {"q": {"d": 10**12}}, {}, "a grade of 1,000,000,000,000"),
        ({"x": rank(["d"], [1.0], 1)}, {"q": {"d": 1}}, {}, "no query of the run is judged .it has 'x', the qrels 'q'"),
        ({"q": Ranking(("d", "d"), np.ones(2, np.float32))}, {"q": {"d": 1}}, {}, "'q' has a document twice"),
        ({"q": Ranking(("d",), np.array([np.nan], np.float32))}, {"q": {"d": 1}}, {}, "a score that is not finite"),
        ({"q": Ranking(("d",), np.array([np.inf], np.float32))}, {"q": {"d": 1}}, {}, "a score that is not finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(run: Run, qrels: Any, options: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        per_query(run, qrels, MEASURES, **options)


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).random(400)
    found = interval({str(i): v for i, v in enumerate(values)})
    error = values.std() / np.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert found == interval({str(i): v for i, v in enumerate(values)})
    assert found != interval({str(i): v for i, v in enumerate(values)}, seed=1)


def test_columns_are_resampled_alike() -> None:
    values = np.random.default_rng(2).random((50, 2))
    both = intervals(np.column_stack([values, values[:, 0]]))
    assert both[0] == both[2] != both[1]
