"""Finished evaluations side by side, from their JSON files alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_results import SYSTEMS, Made, make

from largede.cli import main
from largede.errors import DataError
from largede.evaluation.measures.significance import compare, holm
from largede.evaluation.report import render_markdown, render_report, write_report
from largede.evaluation.report.comparison import compare_reports, rewrite_report
from largede.evaluation.report.examples import DRAWN, LOST, choose_examples
from largede.evaluation.results.collect import System, collect_results


def evaluated(folder: Path, made: list[Made], **other: Any) -> Path:
    """An evaluation's folder."""
    results = collect_results(folder.name, SYSTEMS, [one.measured(**other) for one in made], 0)
    results |= {"settings": {"model": folder.name}, "about": {"command": "largede evaluate"}}
    write_report(folder, results, choose_examples(results, [one.searched() for one in made], 0), {})
    return folder


def better(made: Made) -> Made:
    """The same collection and BM25, with another model."""
    runs = made.runs | {"dense": made.runs["fused"], "fused": made.runs["dense"]}
    queries = dict(reversed(made.queries.items()))
    return replace(made, runs=runs, queries=queries, qrels={query: made.qrels[query] for query in queries})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    out = tmp_path_factory.mktemp("side")
    made = [make(out, name, place, 40) for place, name in enumerate(("one", "two", "three"))]
    return evaluated(out / "base", made), evaluated(out / "large", [better(one) for one in made[:2]])


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


def test_models_are_columns_and_common_collections_rows(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(["report", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    found, (base, large) = read(tmp_path / "out"), map(read, folders)
    assert [system["key"] for system in found["systems"]] == ["base", "base fused", "large", "large fused", "bm25"]
    assert [dataset["name"] for dataset in found["datasets"]] == ["one", "two"]
    assert found["about"] == {"left out: three": "not measured by large"}
    figures = found["datasets"][1]["figures"]
    for measure in ("nDCG@10", "Recall@100", "MRR@10"):
        assert figures["base"][measure]["mean"] == base["datasets"][1]["figures"]["dense"][measure]["mean"]
        assert figures["large"][measure]["mean"] == pytest.approx(
            large["datasets"][1]["figures"]["dense"][measure]["mean"]
        )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not measured by large" in page and 'data-figure="one/large-base/nDCG@10/mean"' in page
    assert "### large − base" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("results.json", {"datasets": [{}]}),
        ("results.json", {"systems": 7}),
        ("page.json", {"curves": [1]}),
    ],
)
def test_files_of_another_shape_are_one_message(
    folders: tuple[Path, Path], tmp_path: Path, file: str, damage: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folders[0], tmp_path / "base")
    path = tmp_path / "base" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    assert main(["report", str(tmp_path / "base"), "--out", str(tmp_path / "out")]) == 2
    assert "that cannot be shown" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_lists_without_a_column_are_named_and_a_sole_kind_of_bm25_is_the_baseline(tmp_path: Path) -> None:
    skill = {"dense": 0.9, "bm25-multifield": 0.8, "rrf": 1.0, "fused": 1.1}
    systems = [System(key, f"the {key}") for key in skill]
    made = make(tmp_path, "one", 1, 40, skill)
    results = collect_results("t", systems, [made.measured()], 0) | {"settings": {}, "about": {}}
    wins = results["datasets"][0]["wins"]
    assert sum(wins.values()) == 40
    compared = [(d["one"], d["other"]) for d in results["datasets"][0]["differences"]]
    assert compared[:2] == [("fused", "bm25-multifield"), ("dense", "bm25-multifield")]
    examples = choose_examples(results, [made.searched()], 0)
    assert {example.why for example in examples} == {DRAWN, LOST}
    page = render_report(results, examples, {})
    assert "Where each wins" in page and "Where dense loses to BM25" in page
    assert "## Where dense loses to BM25" in render_markdown(results, examples)
    found = compare_reports({"base": results, "large": results})
    assert [system["label"] for system in found["systems"]][-1] == "the bm25-multifield"
    assert found["about"] == {f"{name}: in its own report alone": "the rrf" for name in ("base", "large")}


def test_the_tests_are_over_the_same_queries_whatever_their_order(folders: tuple[Path, Path]) -> None:
    base, large = map(read, folders)
    found = compare_reports({"base": base, "large": large})
    plain = []
    for ours, theirs in zip(large["datasets"], base["datasets"][:2], strict=True):
        one, other = (results["per_query"]["dense"]["nDCG@10"] for results in (ours, theirs))
        assert list(one) != list(other)
        plain.append(compare({query: one[query] for query in other}, other, 0))
    differences = [next(d for d in dataset["differences"] if d["one"] == "large") for dataset in found["datasets"]]
    assert [d["figures"]["nDCG@10"]["p_t"] for d in differences] == pytest.approx([p.p_t for p in plain])
    assert [d["figures"]["nDCG@10"]["p_holm"] for d in differences] == pytest.approx(holm([p.p_t for p in plain]))


def test_other_data_is_not_compared(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, large = map(read, folders)
    large["datasets"][0]["fingerprint"] = "of another corpus"
    found = compare_reports({"base": base, "large": large})
    assert [dataset["name"] for dataset in found["datasets"]] == ["two"]
    assert found["about"]["left out: one"] == "corpus, queries or judgements differ"
    del large["datasets"][1]["per_query"]["dense"]["MRR@10"]["q1"]
    with pytest.raises(DataError, match="no collection that all of base, large measured"):
        compare_reports({"base": base, "large": large})


def test_another_bm25_is_no_common_column(folders: tuple[Path, Path]) -> None:
    base, large = map(read, folders)
    large["datasets"][0]["per_query"]["bm25"]["nDCG@10"]["q0"] = 0.123
    found = compare_reports({"base": base, "large": large})
    keys = [system["key"] for system in found["systems"]]
    assert keys == ["base", "base fused", "base bm25", "large", "large fused", "large bm25"]
    compared = {(entry["one"], entry["other"]) for entry in found["datasets"][0]["differences"]}
    assert compared == {("large", "base")} | {
        (f"{name}{kind}", f"{name} bm25") for name in ("base", "large") for kind in ("", " fused")
    }


def test_folders_of_one_name_are_told_apart(folders: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "out", tmp_path / "b" / "out"
    for folder, source in zip((first, second), folders, strict=True):
        folder.mkdir(parents=True)
        (folder / "results.json").write_text((source / "results.json").read_text())
    rewrite_report([first, second], tmp_path / "both")
    assert {"a/out", "b/out"} < {system["label"] for system in read(tmp_path / "both")["systems"]}
    with pytest.raises(DataError, match="a folder given twice"):
        rewrite_report([first, tmp_path / "a" / ".." / "a" / "out"], tmp_path / "both")


def test_one_folder_is_the_same_report_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(["report", str(folders[0]), "--out", str(tmp_path)]) == 0
    for name in ("results.json", "page.json", "report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (folders[0] / name).read_bytes()


def test_a_folder_without_results_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 2
    assert "has no results.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
