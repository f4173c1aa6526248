"""results.json: groups, corrections, averages, and what is compared with what."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import SYSTEMS, make
from scipy import stats

from largede.evaluation.measures.metrics import PerQuery
from largede.evaluation.measures.significance import compare, compare_collections, holm
from largede.evaluation.results.collect import Measured, System, collect_results, compared_pairs


def per_query(seed: int, queries: int, mean: float, measures: tuple[str, ...]) -> PerQuery:
    rng = np.random.default_rng(seed)
    return {m: {f"q{i}": float(np.clip(rng.normal(mean, 0.2), 0, 1)) for i in range(queries)} for m in measures}


def measured(name: str, seed: int, queries: int = 30, group: str | None = None,
             measures: tuple[str, ...] = ("nDCG@10", "MRR@10")) -> Measured:  # fmt: skip
    means = {"dense": 0.50, "bm25": 0.45, "fused": 0.55}
    values = {
        key: per_query(seed * 10 + place, queries, mean, measures) for place, (key, mean) in enumerate(means.items())
    }
    return Measured(name, "test", name, 100, values, measures, group)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    parts = [measured(f"forum/{i}", i, 20 + 40 * i, "forum") for i in range(3)]
    other = measured("passages", 8, measures=("MRR@10", "Recall@1000"))
    return collect_results("t", SYSTEMS, [measured("alone", 7), *parts, other], 5)


def difference(row: dict[str, Any], one: str, other: str, measure: str) -> dict[str, Any]:
    entry = next(d for d in row["differences"] if (d["one"], d["other"]) == (one, other))
    return entry["figures"][measure]  # type: ignore[no-any-return]


def test_figures_and_differences_are_those_of_the_plain_functions(results: dict[str, Any]) -> None:
    row = results["datasets"][0]
    for measure in ("nDCG@10", "MRR@10"):
        ours, theirs = row["per_query"]["dense"][measure], row["per_query"]["bm25"][measure]
        found, plain = difference(row, "dense", "bm25", measure), compare(ours, theirs, 5)
        assert row["figures"]["dense"][measure]["mean"] == pytest.approx(np.mean(list(ours.values())))
        for name in ("mean", "low", "high", "p_t", "p_bootstrap"):
            assert found[name] == pytest.approx(getattr(plain, name), abs=1e-12)
        assert found["p_t"] == pytest.approx(stats.ttest_rel(list(ours.values()), list(theirs.values())).pvalue)


def test_a_group_is_the_mean_of_its_parts_however_many_queries_they_have(results: dict[str, Any]) -> None:
    (group,) = results["groups"]
    parts = [d for d in results["datasets"] if d["group"] == "forum"]
    means = [part["figures"]["dense"]["nDCG@10"]["mean"] for part in parts]
    assert group["figures"]["dense"]["nDCG@10"]["mean"] == pytest.approx(np.mean(means))
    assert (group["queries"], group["documents"]) == (20 + 60 + 100, 300)
    ours, theirs = ({p["name"]: p["per_query"][key]["MRR@10"] for p in parts} for key in ("dense", "bm25"))
    found, plain = difference(group, "dense", "bm25", "MRR@10"), compare_collections(ours, theirs, 5)
    for name in ("mean", "low", "high", "p_t", "p_bootstrap"):
        assert found[name] == pytest.approx(getattr(plain, name), abs=1e-12)


def test_p_values_are_corrected_over_the_rows_of_the_overview(results: dict[str, Any]) -> None:
    rows = [results["datasets"][0], results["groups"][0], results["datasets"][-1]]
    firsts = [difference(row, "fused", "bm25", row["measures"][0]) for row in rows]
    assert [f["p_holm"] for f in firsts] == pytest.approx(holm([f["p_t"] for f in firsts]))
    parts = [difference(d, "fused", "bm25", "nDCG@10") for d in results["datasets"] if d["group"]]
    assert [f["p_holm"] for f in parts] == pytest.approx(holm([f["p_t"] for f in parts]))


def test_averages_are_over_rows_of_the_same_measure(results: dict[str, Any]) -> None:
    (average,) = results["averages"]
    assert (average["rows"], average["left_out"], average["published"]) == (["alone", "forum"], ["passages"], {})
    means = [results["datasets"][0], results["groups"][0]]
    expected = np.mean([row["figures"]["fused"]["nDCG@10"]["mean"] for row in means])
    assert average["systems"]["fused"] == pytest.approx(expected)
    assert results["measures"] == ["nDCG@10", "MRR@10", "Recall@1000"]


def test_what_is_compared() -> None:
    keys = ["dense", "bm25", "bm25-multifield", "fused", "rrf", "reranked-100", "other"]
    assert compared_pairs(keys) == [
        ("fused", "bm25"), ("dense", "bm25"), ("rrf", "bm25"), ("reranked-100", "bm25"),
        ("bm25-multifield", "bm25"), ("fused", "dense"), ("reranked-100", "dense"), ("dense", "other"),
    ]  # fmt: skip
    assert compared_pairs(["dense", "bm25-multifield", "fused"])[:2] == [
        ("fused", "bm25-multifield"), ("dense", "bm25-multifield")
    ]  # fmt: skip
    assert compared_pairs(["dense"]) == []
    assert compared_pairs(["dense", "old"]) == [("dense", "old")]


def test_one_system_alone_has_no_differences(tmp_path: Path) -> None:
    made = make(tmp_path, "one", queries=8, skill={"dense": 1.0})
    results = collect_results("t", [System("dense", "dense")], [made.measured()], 0)
    (dataset,) = results["datasets"]
    assert dataset["differences"] == [] and dataset["wins"] is None and results["averages"] == []
