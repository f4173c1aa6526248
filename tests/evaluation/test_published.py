"""Published figures: all of them can be read, and only the right ones stand beside ours."""

from importlib import resources

import pytest

from largede.evaluation.results.overview import collect_averages
from largede.evaluation.results.published import (
    ANSERINI,
    GTR_PARAMETERS,
    LAYOUTS,
    MTEB,
    PAPER,
    Size,
    published_beside,
    published_beside_group,
    published_figures,
    published_indexes,
    published_sizes,
)


def value(dataset: str, measure: str, system: str) -> float:
    found = [f.value for f in published_figures() if (f.dataset, f.measure, f.system) == (dataset, measure, system)]
    assert len(found) == 1
    return found[0]


def test_figures_are_shares_from_named_sources() -> None:
    figures = published_figures()
    assert {figure.family for figure in figures} == {PAPER, ANSERINI, MTEB, LAYOUTS}
    assert all(0 < figure.value < 1 and figure.source for figure in figures)
    assert len({(f.dataset, f.measure, f.system, f.family) for f in figures}) == len(figures)


def test_known_figures_are_where_they_belong() -> None:
    assert value("nfcorpus", "nDCG@10", "gtr-base") == 0.308
    assert value("msmarco", "MRR@10", "gtr-xxl") == 0.388
    assert value("scifact", "Recall@100", "Anserini flat") == 0.9253
    assert value("nfcorpus", "nDCG@10", "MTEB bm25s") == 0.32082
    assert value("quora", "nDCG@10", "MTEB gtr-large") == 0.8847
    assert value("open-nq", "Answer@20", "ade-spl large") == pytest.approx(0.8025)
    assert value("multireqa/naturalquestions", "P@1", "sde") == pytest.approx(0.4887)
    rows, source = published_indexes()
    assert [row["index"] for row in rows] == ["IndexFlatIP", "IndexHNSWFlat", "IndexHNSWSQ"] and "Yang" in source


def test_capped_recall_is_not_set_beside_recall() -> None:
    systems = {f.system for f in published_figures() if (f.dataset, f.measure) == ("trec-covid", "Recall@100")}
    assert systems and not any(system.startswith("gtr") or system == "bm25" for system in systems)


def test_every_figure_of_a_beir_set_has_a_size_to_be_checked_against() -> None:
    datasets = {f.dataset for f in published_figures() if f.family != LAYOUTS and f.dataset != "cqadupstack"}
    assert datasets == published_sizes().keys() - {"open-nq"}
    parts = [size for name, size in published_sizes().items() if name.startswith("cqadupstack/")]
    # The sums are what the benchmark's paper gives for the whole set.
    assert (sum(s.documents for s in parts), sum(s.queries for s in parts)) == (457_199, 13_145)


@pytest.mark.parametrize(
    "found", [Size("test", 3_634, 323), Size("test", 3_633, 322), Size("dev", 3_633, 323)], ids=str
)
def test_another_size_or_split_is_not_compared(found: Size) -> None:
    figures, note = published_beside("nfcorpus", found)
    assert figures == [] and "nothing published is set beside it" in note and "3,633 documents" in note


def test_the_right_size_is_compared_and_an_unknown_name_needs_no_note() -> None:
    figures, note = published_beside("nfcorpus", Size("test", 3_633, 323))
    assert {f.system for f in figures} >= {"bm25", "gtr-xxl", "Anserini flat", "MTEB gtr-base"} and note == ""
    assert published_beside("our-own", Size("test", 10, 10)) == ([], "")
    figures, note = published_beside("multireqa/squad", Size("test", 10, 10))
    assert figures and "not known" in note


def test_a_group_is_compared_when_all_its_parts_are_there() -> None:
    parts = {name: size for name, size in published_sizes().items() if name.startswith("cqadupstack/")}
    figures, note = published_beside_group("cqadupstack", parts)
    flat = [f.value for f in figures if (f.system, f.measure) == ("Anserini flat", "nDCG@10")]
    of_parts = [value(part, "nDCG@10", "Anserini flat") for part in parts]
    assert note == "" and len(of_parts) == 12 and flat == [pytest.approx(sum(of_parts) / 12)]
    fewer = {name: size for name, size in parts.items() if name != "cqadupstack/tex"}
    assert published_beside_group("cqadupstack", fewer) == (
        [],
        "cqadupstack: nothing published is set beside the mean, which is over 11 parts without cqadupstack/tex.",
    )
    assert "another size" in published_beside_group("cqadupstack", parts | {"cqadupstack/tex": Size("test", 1, 1)})[1]


def test_averages_of_the_published_table_are_those_that_the_paper_prints() -> None:
    names = [*(n for n in published_sizes() if "/" not in n and n != "open-nq"), "cqadupstack"]
    rows = []
    for name in names:
        published = [f.__dict__ for f in published_figures() if (f.dataset, f.measure) == (name, "nDCG@10")]
        row = {"name": name, "group": None, "measures": ["nDCG@10"], "figures": {"d": {"nDCG@10": {"mean": 0.5}}}}
        rows.append(row | {"published": published})
    averages = collect_averages({"measures": ["nDCG@10"], "datasets": rows, "groups": [], "systems": [{"key": "d"}]})
    (average,) = averages
    assert len(average["rows"]) == 18 and average["left_out"] == ["msmarco"]
    # Ni et al. 2021, tables 3 to 6.
    for system, printed in {"gtr-base": 0.416, "gtr-large": 0.445, "gtr-xl": 0.453, "gtr-xxl": 0.458}.items():
        assert average["published"][system] == pytest.approx(printed, abs=6e-4)
    assert GTR_PARAMETERS.keys() <= average["published"].keys()


def test_the_files_are_in_the_package() -> None:
    names = {path.name for path in resources.files("largede.evaluation.results").joinpath("published").iterdir()}
    assert {"README.md", "sizes.csv", "gtr_beir_ndcg10.csv", "bm25_and_mteb_reference.json"} <= names
