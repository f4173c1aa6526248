"""The lexical baseline: figures of every field and collection, and k1 and b chosen on queries that are not reported."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from beir_folder import write_collection, write_qrels

from largede.cli import main
from largede.errors import DataError
from largede.evaluation import bm25_tuning
from largede.evaluation.baseline import open_lexical_task, run_bm25, run_path
from largede.evaluation.bm25_tuning import Bm25Choice, best_point, check_tunable, grid_lines, tune_bm25
from largede.evaluation.datasets.collection import Collection
from largede.evaluation.datasets.collections import open_collections
from largede.evaluation.measures.metrics import mean, per_query
from largede.retrieval.bm25 import Bm25Run, Bm25Settings, bm25_searches
from largede.retrieval.corpus import Benchmark, open_benchmark
from largede.retrieval.runs import read_run


def in_folder(folder: Path, split: str | None = None) -> Collection:
    (found,) = open_collections([str(folder)], split=split)
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One collection with a development split and one without."""
    folder = tmp_path_factory.mktemp("lexical")
    tunable = write_collection(folder / "tunable", documents=240, queries=96, splits=("test", "dev"))
    return tunable, write_collection(folder / "plain")


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bm25_tuning, "K1", (0.9, 1.6, 3.0))
    monkeypatch.setattr(bm25_tuning, "B", (0.0, 0.4, 0.75))


@pytest.mark.slow
def test_the_verb_reports_figures_and_the_grid_and_does_nothing_twice(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["bm25", "--data", *map(str, folders), "--out", str(tmp_path / "out"), "--tune"]
    words += ["--fields", "multifield", "--index-cache", str(tmp_path / "indexes")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "bm25.json").read_text())
    assert set(results["systems"]["tunable"]) == set(results["systems"]["plain"]) == {"bm25-multifield"}
    found = results["systems"]["tunable"]["bm25-multifield"]
    tuning = found["tuning"]
    assert (found["k1"], found["b"]) == (tuning["k1"], tuning["b"])
    assert len(tuning["grid"]) == 9 and tuning["chosen_on"] == "48 queries of tunable, split dev"
    assert "tunable  bm25-multifield: nDCG@10 on 48 queries of tunable, split dev\n  k1 \\ b" in shown
    assert f"{max(figure for _, _, figure in tuning['grid']):.4f}*" in shown
    figure = found["figures"]["nDCG@10"]["mean"]
    assert f"tunable  bm25-multifield  k1 {found['k1']:g}  b {found['b']:g}  nDCG@10 {figure:.4f}" in shown
    plain = results["systems"]["plain"]["bm25-multifield"]
    assert (plain["k1"], plain["b"], plain["tuning"]["grid"]) == (0.9, 0.4, [])
    assert "(no development split: not tuned)" in shown
    assert len(list((tmp_path / "indexes").iterdir())) == 2
    assert not list((tmp_path / "out").rglob("k1-*"))

    def unwanted(*args: Any) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(bm25_tuning, "bm25_searches", unwanted)
    monkeypatch.setattr("largede.evaluation.baseline.bm25_search", unwanted)
    assert main(words) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.slow
def test_a_grid_that_was_stopped_goes_on_and_its_figures_are_those_of_whole_runs(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev = open_benchmark(folders[0], "dev")
    asked: list[int] = []

    def stopping(corpus: Any, queries: Any, index: Any, runs: Sequence[Bm25Run], settings: Bm25Settings) -> None:
        asked.append(len(runs))
        bm25_searches(corpus, queries, index, runs[:4] if len(asked) == 1 else runs, settings)
        if len(asked) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(bm25_tuning, "bm25_searches", stopping)
    with pytest.raises(KeyboardInterrupt):
        tune_bm25(tmp_path / "out", dev, Bm25Settings(), "nDCG@10", index_cache=tmp_path)
    choice = tune_bm25(tmp_path / "out", dev, Bm25Settings(), "nDCG@10", index_cache=tmp_path)
    assert asked == [9, 5]
    assert tune_bm25(tmp_path / "out", dev, Bm25Settings(), "nDCG@10", index_cache=tmp_path) == choice
    assert asked == [9, 5]
    run_bm25(tmp_path / "out", dev, Bm25Settings(choice.k1, choice.b), tmp_path)
    run = read_run(run_path(tmp_path / "out", dev))
    figure = mean(per_query(run, dev.qrels, ("nDCG@10",))["nDCG@10"])
    assert {(k1, b): value for k1, b, value in choice.grid}[choice.k1, choice.b] == figure
    assert figure == max(value for _, _, value in choice.grid)


def test_of_a_large_development_split_a_fixed_part_is_used(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[dict[str, str]] = []

    def leave(corpus: Any, queries: dict[str, str], *rest: Any) -> None:
        searched.append(queries)
        raise KeyboardInterrupt

    monkeypatch.setattr(bm25_tuning, "bm25_searches", leave)
    monkeypatch.setattr(bm25_tuning, "MOST_QUERIES", 10)
    dev = open_benchmark(folders[0], "dev")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune_bm25(tmp_path, dev, Bm25Settings(), "nDCG@10")
    assert searched[0] == searched[1]
    assert len(searched[0]) == 10 and searched[0].items() <= dev.queries.items()
    assert bm25_tuning._drawn(dev)[1] == "10 of 48 queries of tunable, split dev"


def test_equal_figures_are_decided_towards_the_settings() -> None:
    flat = [(k1, b, 0.5) for k1 in (0.6, 0.9, 1.2) for b in (0.2, 0.4, 0.6)]
    assert best_point(flat, Bm25Settings()) == (0.9, 0.4)
    assert best_point(flat, Bm25Settings(k1=2.0, b=0.5)) == (1.2, 0.4)
    assert best_point([*flat, (0.6, 0.2, 0.5 + 1e-12)], Bm25Settings()) == (0.9, 0.4)
    assert best_point([*flat, (0.6, 0.2, 0.51)], Bm25Settings()) == (0.6, 0.2)


def test_the_grid_is_shown_as_a_table_with_the_choice_marked() -> None:
    choice = Bm25Choice(
        1.2, 0.4, "here", "MRR@10", ((0.9, 0.4, 0.1), (0.9, 0.8, 0.2), (1.2, 0.4, 0.3), (1.2, 0.8, 0.25))
    )
    assert grid_lines(choice, "set  bm25") == [
        "set  bm25: MRR@10 on here",
        "  k1 \\ b      0.4      0.8",
        "     0.9  0.1000   0.2000 ",
        "     1.2  0.3000*  0.2500 ",
    ]


def test_nothing_is_tuned_on_what_is_reported(folders: tuple[Path, Path], tmp_path: Path) -> None:
    tunable, plain = folders
    task = open_lexical_task(in_folder(tunable), dev=True)
    check_tunable([task])
    assert task.dev is not None
    with pytest.raises(
        DataError, match="chosen on split 'dev' of tunable and figures reported on 'dev' of tunable: 48 queries"
    ):
        check_tunable([replace(task, test=task.dev)])
    assert open_lexical_task(in_folder(tunable, "dev"), dev=True).dev is None
    without = open_lexical_task(in_folder(plain), dev=True)
    with pytest.raises(DataError, match="nothing to tune BM25 on: no development split in plain"):
        check_tunable([without])
    leaking = write_collection(tmp_path / "leaking", splits=("test", "dev"))
    write_qrels(leaking, "dev", [("q0", "d000", 1), ("q1", "d001", 1)])
    task = open_lexical_task(in_folder(leaking), dev=True)
    with pytest.raises(DataError, match=r"1 queries are in both \(q0\)"):
        check_tunable([task])


def test_the_verb_refuses_to_tune_on_the_reported_split_before_any_work(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bm25", "--data", str(folders[0]), "--out", str(tmp_path / "out"), "--split", "dev", "--tune"]
    assert main(words) == 2
    assert "leave out --tune or --tune-bm25" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_benchmark_may_have_a_folder_in_its_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = open_benchmark(folders[1], "test")
    benchmark = Benchmark("group/part", "test", found.corpus, found.queries, found.qrels)
    assert run_path(tmp_path, benchmark) == tmp_path / "runs" / "group" / "part" / "test" / "bm25.trec"
