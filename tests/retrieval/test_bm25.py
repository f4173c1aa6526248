"""BM25 in its own process: Anserini's published figures, an index that survives everything, and clear errors."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from beir_folder import shared_data, write_collection, write_jsonl

from largede.errors import DataError, MachineError, NoRoomError
from largede.evaluation.measures.metrics import mean, per_query
from largede.retrieval import bm25
from largede.retrieval.bm25 import Bm25Run, Bm25Settings, bm25_search, bm25_searches, index_path
from largede.retrieval.corpus import open_benchmark, open_corpus
from largede.retrieval.progress import Progress
from largede.retrieval.runs import read_run

PUBLISHED = {
    "flat": {"nDCG@10": 0.3218, "Recall@100": 0.2457, "Recall@1000": 0.3704},
    "multifield": {"nDCG@10": 0.3254, "Recall@100": 0.2500, "Recall@1000": 0.3718},
}
"""Anserini's regressions beir-v1.0.0-nfcorpus.flat and .multifield."""


@pytest.mark.slow
@pytest.mark.parametrize("fields", ["flat", "multifield"])
def test_nfcorpus_as_published(fields: bm25.Fields, tmp_path: Path) -> None:
    benchmark = open_benchmark(shared_data("collections", "nfcorpus"), "test")
    settings = Bm25Settings(fields=fields)
    bm25_search(benchmark.corpus, benchmark.queries, tmp_path / "index", tmp_path / "run", settings)
    found = per_query(read_run(tmp_path / "run"), benchmark.qrels, ("nDCG@10", "Recall@100", "Recall@1000"))
    assert {measure: round(mean(values), 4) for measure, values in found.items()} == PUBLISHED[fields]


@pytest.mark.slow
def test_the_index_is_used_again_and_rebuilt_when_damaged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it lies in the cache that all commands share."""
    monkeypatch.setenv("LARGEDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bm25, "Progress", partial(Progress, every_s=0.0))
    corpus = open_corpus(write_collection(tmp_path / "data"))
    queries = {"d000": "engine", "odd": 'engine "quoted" +01word -(02word\t03word\x1e\x00'}
    folder = index_path(tmp_path / "cache" / "bm25", corpus, Bm25Settings())

    def searched() -> bytes:
        bm25_search(corpus, queries, None, tmp_path / "run", Bm25Settings(depth=5))
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
        return (tmp_path / "run").read_bytes()

    first = searched()
    assert "BM25: 160 of 160 documents indexed" in capfd.readouterr().err
    found = read_run(tmp_path / "run")
    assert len(found["odd"]) == 5
    # As Anserini does it: the document with the query's own id is taken out of the best five.
    assert len(found["d000"]) == 4 and "d000" not in found["d000"].ids
    built = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert searched() == first
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == built
    assert "documents indexed" not in capfd.readouterr().err
    victim = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    flipped = bytearray(victim.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    victim.write_bytes(flipped)
    assert searched() == first
    assert f"BM25: the index {folder} is damaged, it is built again" in capfd.readouterr().err
    assert not {"pyserini", "jnius"} & set(sys.modules)


@pytest.mark.slow
def test_killed_while_indexing_it_stops_whole_and_two_at_once_then_build_one_index(tmp_path: Path) -> None:
    data = write_collection(tmp_path / "data", documents=4000)
    words = [sys.executable, "-m", "largede.cli", "bm25", "--data", str(data), "--out", str(tmp_path / "out")]
    words += ["--index-cache", str(tmp_path / "index")]
    (tmp_path / "scratch").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "scratch")}
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment) as process:
        while not list(tmp_path.glob("index/.lucene-*.partial")):
            assert process.poll() is None
            time.sleep(0.01)
        holder = json.loads(next(tmp_path.glob("index/*.hold")).read_text())["pid"]
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while is_running(holder):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not list(tmp_path.glob("index/lucene-*/whole.json"))
    assert not list((tmp_path / "scratch").iterdir())
    left = {path.name for path in (tmp_path / "index").iterdir()}
    corpus = open_corpus(data)
    searches = [
        threading.Thread(
            target=bm25_search,
            args=(corpus, {"q": "engine harbour"}, tmp_path / "index", tmp_path / f"run{k}", Bm25Settings()),
        )
        for k in range(2)
    ]
    for one in searches:
        one.start()
    for one in searches:
        one.join()
    assert (tmp_path / "run0").read_bytes() == (tmp_path / "run1").read_bytes() != b""
    names = {path.name for path in (tmp_path / "index").iterdir()}
    assert len(names) == 1 and not names & left


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_queries_without_words_and_very_long_ones_work(tmp_path: Path) -> None:
    """Lucene's limit is 1024 different words; a query over it must rank as its words do, not find nothing."""
    documents = [{"_id": f"d{i}", "title": f"t{i}", "text": f"w{i} w{i} common"} for i in range(2000)]
    documents += [{"_id": "blank", "title": "only a title", "text": " \x00\n"}]
    write_jsonl(tmp_path / "corpus.jsonl", documents)
    corpus = open_corpus(tmp_path / "corpus.jsonl")
    queries = {
        "stop": "the of and",
        "signs": "!!! ???",
        "control": "\x01",
        "long": " ".join(f"w{i}" for i in range(2000)) + " w7" * 3,
        "short": "w3",
    }
    bm25_search(corpus, queries, tmp_path / "index", tmp_path / "run", Bm25Settings(fields="multifield", depth=1999))
    run = read_run(tmp_path / "run")
    assert list(run) == ["long", "short"]
    assert run["long"].ids[0] == "d7" and len(run["long"]) == 1999
    assert run["short"].ids == ("d3",)
    marked = json.loads(next(tmp_path.glob("index/*/whole.json")).read_text())
    # A document without text is left out of two fields, as Anserini leaves it out.
    assert marked["documents"] == 2000


@pytest.mark.slow
def test_many_batches_give_the_run_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = open_benchmark(write_collection(tmp_path / "data"), "test")
    runs = [Bm25Run(0.9, 0.4, tmp_path / "one"), Bm25Run(2.0, 0.8, tmp_path / "two")]
    bm25_searches(benchmark.corpus, benchmark.queries, tmp_path / "index", runs, Bm25Settings(depth=100))
    whole = runs[0].path.read_bytes()
    assert whole != runs[1].path.read_bytes()
    monkeypatch.setattr(bm25, "_HITS_AT_ONCE", 500)
    bm25_searches(benchmark.corpus, benchmark.queries, tmp_path / "index", runs[:1], Bm25Settings(depth=100))
    assert runs[0].path.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("size", [10_000, 100_000], ids=["while indexing", "while searching"])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(size: int, tmp_path: Path) -> None:
    benchmark = open_benchmark(write_collection(tmp_path / "data", documents=3000), "test")
    with largest_file(size), pytest.raises(NoRoomError, match="no room left for BM25") as error:
        bm25_search(benchmark.corpus, benchmark.queries, tmp_path / "index", tmp_path / "run", Bm25Settings())
    assert "--index-cache" in error.value.mend
    assert not (tmp_path / "run").exists()
    assert len(list(tmp_path.glob("index/*"))) == (0 if size == 10_000 else 1)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails in every process that is started here, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heap_mib", "said"),
    [(1, "Java did not start with a heap of 1 MiB"), (5, "ran out of memory with a heap of 5 MiB")],
)
def test_too_little_memory_is_one_clear_error(heap_mib: int, said: str, tmp_path: Path) -> None:
    benchmark = open_benchmark(write_collection(tmp_path / "data", documents=3000), "test")
    with pytest.raises(MachineError, match=said) as error:
        bm25_search(
            benchmark.corpus, benchmark.queries, tmp_path / "index", tmp_path / "run", Bm25Settings(heap_mib=heap_mib)
        )
    assert "--java-memory-gib" in error.value.mend
    assert not (tmp_path / "run").exists()


def test_a_corpus_that_changed_is_refused(tmp_path: Path) -> None:
    benchmark = open_benchmark(write_collection(tmp_path / "data"), "test")
    with (tmp_path / "data" / "corpus.jsonl").open("a") as stream:
        stream.write('{"_id": "new", "text": "new"}\n')
    with pytest.raises(DataError, match="corpus.jsonl changed while it was being read"):
        bm25_search(benchmark.corpus, benchmark.queries, tmp_path / "index", tmp_path / "run", Bm25Settings())
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob("index/*"))


def test_a_process_that_dies_says_what_it_said_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nread line\necho 'no such luck' >&2\nexit 7\n")
    program.chmod(0o755)
    benchmark = open_benchmark(write_collection(tmp_path / "data"), "test")
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(MachineError, match="(?s)BM25 process ended with status 7:.*no such luck"):
        bm25_search(benchmark.corpus, benchmark.queries, tmp_path / "index", tmp_path / "run", Bm25Settings())
    program.write_text("#!/bin/sh\nread line\nkill -9 $$\n")
    with pytest.raises(MachineError, match=r"killed \(signal 9\)"):
        bm25_search(benchmark.corpus, benchmark.queries, tmp_path / "index", tmp_path / "run", Bm25Settings())


@pytest.mark.parametrize("wrong", [{"k1": -0.1}, {"k1": float("nan")}, {"b": 1.01}, {"b": -1}, {"depth": 0}])
def test_impossible_parameters_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="k1 from 0 up, b from 0 to 1"):
        Bm25Settings(**wrong)  # type: ignore[arg-type]


def test_pyserini_missing_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bm25.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="pyserini is not installed"):
        bm25.anserini_version()
    assert os.environ.get("OPENAI_API_KEY") is None
