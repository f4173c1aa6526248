"""Folders in BEIR format are checked at the edge: each fault has one message with file and line."""

from pathlib import Path

import pytest
from beir_folder import write_collection, write_jsonl

from largede.errors import DataError
from largede.retrieval.corpus import open_benchmark, open_corpus, open_queries


def test_reads_any_rows_again_and_looks_ids_up(tmp_path: Path) -> None:
    rows = [{"_id": f"d{i}", "title": "", "text": f"text {i} é"} for i in range(7)]
    write_jsonl(tmp_path / "corpus.jsonl", rows)
    # A blank line and a carriage return must not shift the starts.
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n\n", 2))
    corpus = open_corpus(tmp_path)
    assert [d.text for d in corpus.documents(2, 5)] == ["text 2 é", "text 3 é", "text 4 é"]
    assert {id_: d.text for id_, d in corpus.lookup({"d6", "d0", "absent"}).items()} == {
        "d0": "text 0 é",
        "d6": "text 6 é",
    }


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first = open_corpus(write_collection(tmp_path / "a"))
    same = open_corpus(write_collection(tmp_path / "b"))
    path = tmp_path / "b" / "corpus.jsonl"
    path.write_text(path.read_text().replace("word", "work", 1))
    assert first.fingerprint == same.fingerprint != open_corpus(tmp_path / "b").fingerprint


def test_notices_a_corpus_that_changes_while_it_is_read(tmp_path: Path) -> None:
    corpus = open_corpus(write_collection(tmp_path))
    (tmp_path / "corpus.jsonl").write_text('{"_id": "other"}\n' * 200)
    with pytest.raises(DataError, match=r"corpus.jsonl changed while it was being read \(document 'd000'\)"):
        list(corpus.documents())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json}", "line 2: bad JSON"),
        ("[1]", "line 2: a JSON list"),
        ('{"text": "no id"}', "line 2: _id None"),
        ('{"_id": "b", "text": null}', "line 2: no text"),
        ('{"_id": "b", "title": "alone"}', "line 2: no text"),
        ('{"_id": 7, "text": ""}', "line 2: _id 7"),
        ('{"_id": "a b", "text": ""}', "line 2: _id 'a b'"),
        ('{"_id": "#1", "text": ""}', "line 2: _id '#1'"),
        ('{"_id": "a\\u0000b", "text": ""}', "line 2: _id 'a"),
        ('{"_id": "a\\u007f", "text": ""}', "line 2: _id 'a"),
        ('{"_id": "d0", "text": "again"}', "the id 'd0' twice"),
        ('{"_id": "d1", "text": ["list"]}', "line 2: text is a list"),
    ],
)
def test_bad_documents(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d0", "text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=message.replace("[", r"\[")):
        open_corpus(tmp_path)


def test_empty_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file .*corpus.jsonl"):
        open_corpus(tmp_path)
    (tmp_path / "corpus.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="corpus.jsonl is empty"):
        open_corpus(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        open_benchmark(tmp_path / "absent", "test")


def test_empty_query(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "q0", "text": "fine"}, {"_id": "q1", "text": "  "}])
    with pytest.raises(DataError, match="queries.jsonl, line 2: a query without text"):
        open_queries(tmp_path / "queries.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q0\td000\t1.5", "line 2: the score '1.5'"),
        ("q0\td000", "line 2: 2 columns"),
        ("nobody\td000\t1", "line 2: unknown query 'nobody'"),
        ("q0\tnothing\t1", "line 2: unknown document 'nothing'"),
        ("q0\td000\t1\nq0\td000\t2", "line 3: 'q0' and 'd000' judged twice"),
        ("", "holds no judgement"),
    ],
)
def test_bad_qrels(tmp_path: Path, line: str, message: str) -> None:
    write_collection(tmp_path)
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + line + "\n")
    with pytest.raises(DataError, match=message):
        open_benchmark(tmp_path, "test")


def test_a_missing_split_names_those_that_exist(tmp_path: Path) -> None:
    write_collection(tmp_path, splits=("dev", "test"))
    with pytest.raises(DataError, match=r"no qrels/train.tsv\n  expected: one of its splits \(there are: dev, test\)"):
        open_benchmark(tmp_path, "train")


def test_the_header_is_optional_and_only_judged_queries_are_kept(tmp_path: Path) -> None:
    write_collection(tmp_path)
    (tmp_path / "qrels" / "test.tsv").write_text("q3\td000\t2\nq3\td001\t0\n")
    benchmark = open_benchmark(tmp_path, "test")
    assert list(benchmark.queries) == ["q3"]
    assert benchmark.qrels == {"q3": {"d000": 2, "d001": 0}}


def test_half_a_character_is_replaced_in_texts_and_refused_in_names(tmp_path: Path) -> None:
    lines = '{"_id": "a", "text": "\\ud83d\\ude00 whole"}\n{"_id": "b", "title": "\\ude00", "text": "cut \\ud83d"}\n'
    for name in ("corpus.jsonl", "queries.jsonl"):
        (tmp_path / name).write_text(lines)
    first, second = open_corpus(tmp_path).documents()
    assert (first.text, second.title, second.text) == ("😀 whole", "�", "cut �")
    assert open_queries(tmp_path / "queries.jsonl") == {"a": "😀 whole", "b": "cut �"}
    (tmp_path / "corpus.jsonl").write_text('{"_id": "\\ud83d", "text": "x"}\n')
    with pytest.raises(DataError, match="line 1: _id"):
        open_corpus(tmp_path)
