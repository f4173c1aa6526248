"""Collections opened: names, splits, answers, and corpora that are read once."""

from pathlib import Path

import numpy as np
import pytest
from beir_folder import write_collection, write_jsonl

from largede.errors import DataError
from largede.evaluation.datasets import benchmarks
from largede.evaluation.datasets.benchmarks import open_collection
from largede.evaluation.datasets.collection import ANSWER_MEASURES, Collection
from largede.evaluation.measures.answers import answer_recall
from largede.retrieval.corpus import Corpus
from largede.retrieval.runs import Ranking


def ranking(*ids: str) -> Ranking:
    return Ranking(ids, np.arange(len(ids), 0, -1, dtype=np.float32))


def test_splits_bear_the_collections_name(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "folder", splits=("test", "dev"))
    opened = open_collection(Collection("a/name", folder, dev_split="dev"))
    assert opened.dev is not None
    assert (opened.test.name, opened.test.split) == ("a/name", "test")
    assert (opened.dev.name, opened.dev.split) == ("a/name", "dev")
    assert not opened.test.queries.keys() & opened.dev.queries.keys()
    assert opened.answers is None
    assert opened.fingerprint == opened.test.fingerprint


def test_answers_stand_in_for_qrels_and_are_in_the_fingerprint(tmp_path: Path) -> None:
    def opened(answer: str) -> benchmarks.Opened:
        write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "d1", "text": "in Bern"}, {"_id": "d2", "text": "in Thun"}])
        query = {"_id": "q", "text": "where?", "metadata": {"answers": [answer]}}
        write_jsonl(tmp_path / "queries.jsonl", [query])
        return open_collection(Collection("qa", tmp_path, measures=ANSWER_MEASURES, has_answers=True))

    first = opened("thun")
    assert first.test.queries == {"q": "where?"}
    assert first.answers == {"q": ["thun"]}
    measured = answer_recall({"q": ranking("d1", "d2")}, first.test.corpus, first.answers)
    assert list(measured) == list(ANSWER_MEASURES)
    assert (measured["Answer@1"]["q"], measured["Answer@5"]["q"]) == (0.0, 1.0)
    assert opened("bern").fingerprint != first.fingerprint
    assert opened("thun").fingerprint == first.fingerprint


def test_a_corpus_that_two_collections_share_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_collection(tmp_path / "one")
    write_collection(tmp_path / "two")
    (tmp_path / "two" / "corpus.jsonl").unlink()
    (tmp_path / "two" / "corpus.jsonl").symlink_to("../one/corpus.jsonl")
    reads = []

    def counted(path: Path) -> Corpus:
        reads.append(path)
        return plain(path)

    plain = benchmarks.open_corpus
    monkeypatch.setattr(benchmarks, "open_corpus", counted)
    corpora: dict[Path, Corpus] = {}
    opened = [open_collection(Collection(name, tmp_path / name), corpora) for name in ("one", "two")]
    assert len(reads) == 1
    assert opened[0].test.corpus is opened[1].test.corpus


def test_a_split_that_is_not_there_is_said(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "folder")
    with pytest.raises(DataError, match=r"has no qrels/dev\.tsv"):
        open_collection(Collection("name", folder, split="dev"))
