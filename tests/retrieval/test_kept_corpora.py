"""What was found in a large corpus serves the next command; never for a file that is another by now."""

import os
import time
from pathlib import Path

import pytest
from beir_folder import write_collection, write_jsonl

from largede.errors import DataError
from largede.retrieval import corpus as rooms
from largede.retrieval import kept_corpora
from largede.retrieval.corpus import open_benchmark, open_corpus


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A collection that counts as large and has not changed for a while."""
    monkeypatch.setenv("LARGEDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_corpora, "LEAST_BYTES", 1)
    folder = write_collection(tmp_path / "large")
    long_ago(folder / "corpus.jsonl")
    return folder


def long_ago(path: Path) -> None:
    os.utime(path, (time.time() - 60, time.time() - 60))


def refuse(*_: object) -> None:
    raise AssertionError("the corpus was read again")


def test_the_second_time_no_line_is_read(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_corpus(large)
    benchmark = open_benchmark(large, "test")
    monkeypatch.setattr(rooms, "_check_corpus", refuse)
    again = open_corpus(large)
    assert list(again.ids) == list(first.ids) and again.fingerprint == first.fingerprint
    assert list(again.documents()) == list(first.documents()) and len(list(again.documents())) == len(again) == 160
    assert again.ids[3:7] == first.ids[3:7] == tuple(f"d{i:03d}" for i in range(3, 7))
    assert again.lookup({"d007", "absent"}).keys() == {"d007"}
    assert open_benchmark(large, "test").fingerprint == benchmark.fingerprint


def test_a_file_that_changed_is_read_again(large: Path) -> None:
    first = open_corpus(large)
    path = large / "corpus.jsonl"
    path.write_text(path.read_text().replace("d000", "e000", 1))
    long_ago(path)
    changed = open_corpus(large)
    assert changed.ids[0] == "e000" and changed.fingerprint != first.fingerprint


def test_nothing_is_kept_of_a_small_or_a_fresh_file(large: Path, tmp_path: Path) -> None:
    os.utime(large / "corpus.jsonl")
    open_corpus(large)
    assert not (tmp_path / "cache").exists()
    long_ago(large / "corpus.jsonl")
    kept_corpora.LEAST_BYTES = 2**40
    open_corpus(large)
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_costs_nothing(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARGEDE_CACHE", str(large / "corpus.jsonl"))
    assert len(open_corpus(large)) == 160


def test_a_bad_corpus_is_not_kept(large: Path, tmp_path: Path) -> None:
    write_jsonl(large / "corpus.jsonl", [{"_id": f"d{i}", "text": "x"} for i in (1, 2, 3, 2)])
    long_ago(large / "corpus.jsonl")
    for _ in range(2):
        with pytest.raises(DataError, match="id 'd2' twice"):
            open_corpus(large)
    assert not (tmp_path / "cache").exists()
