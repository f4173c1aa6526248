"""Lengths of what was retrieved: of the right passages, and of no others."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from beir_folder import write_jsonl

from largede.evaluation.results import lengths
from largede.evaluation.results.lengths import EDGES, retrieved_lengths
from largede.retrieval.corpus import Corpus, Document, open_corpus
from largede.retrieval.runs import rank

WORDS = {"one": 1, "ten": 10, "many": 300, "vast": 20_000}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": id_, "text": "w " * words} for id_, words in WORDS.items()])
    return open_corpus(tmp_path)


def test_each_kind_has_the_lengths_of_its_passages(corpus: Corpus) -> None:
    runs = {
        "a": {"q": rank(["ten", "many"], [2.0, 1.0], 10)},
        "b": {"q": rank(["one"], [1.0], 10), "p": rank([], [], 1)},
    }
    found = retrieved_lengths(corpus, runs, {"q": {"many": 2, "ten": 0}, "p": {"vast": 0}})
    assert (found["corpus"]["passages"], found["relevant"]["median"]) == (4, 300)
    assert found["retrieved"]["a"]["mean"] == 155 and found["retrieved"]["b"]["median"] == 1
    assert sum(found["corpus"]["shares"]) == pytest.approx(1)
    assert found["retrieved"]["b"]["shares"][EDGES.index(1)] == 1.0


def test_a_passage_counts_as_often_as_it_is_found_and_only_near_the_top(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": f"d{i:02d}", "text": "w " * (i + 1)} for i in range(30)])
    corpus = open_corpus(tmp_path)
    ranking = rank(corpus.ids, -np.arange(30.0), 30)
    found = retrieved_lengths(corpus, {"a": {"q": ranking, "p": ranking}}, {"q": {"d00": 1}})
    assert found["retrieved"]["a"]["passages"] == 20
    assert found["retrieved"]["a"]["mean"] == np.mean(range(1, 11))


def test_without_hits_or_judgements_a_kind_is_left_out(corpus: Corpus) -> None:
    found = retrieved_lengths(corpus, {"a": {}}, {})
    assert "relevant" not in found and found["retrieved"] == {}


def test_only_drawn_documents_are_read(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    class Watched(Corpus):
        def documents(self, first: int = 0, last: int | None = None) -> Iterator[Document]:
            for document in super().documents(first, last):
                read.append(document.id)
                yield document

    watched = Watched(**{field.name: getattr(corpus, field.name) for field in dataclasses.fields(Corpus)})
    monkeypatch.setattr(lengths, "SAMPLE", 2)
    first = retrieved_lengths(watched, {"a": {"q": rank(["one"], [1.0], 1)}}, {"q": {"one": 1}}, seed=3)
    assert len(set(read)) == len(read) <= 3
    assert first["corpus"]["passages"] == 2
    assert first == retrieved_lengths(corpus, {"a": {"q": rank(["one"], [1.0], 1)}}, {"q": {"one": 1}}, seed=3)
