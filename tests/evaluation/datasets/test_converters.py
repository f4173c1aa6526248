"""Other people's files as folders in BEIR format: DPR, TREC, SQuAD, MRQA."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from beir_folder import shared_data
from made_archives import lines

from largede.errors import DataError
from largede.evaluation.datasets import squad_format
from largede.evaluation.datasets.collections import open_collections
from largede.evaluation.datasets.dpr import write_answered_queries, write_passages
from largede.evaluation.datasets.from_squad import write_sentences
from largede.evaluation.datasets.squad_format import read_contexts
from largede.evaluation.datasets.trec_dl import write_trec_queries
from largede.evaluation.measures.answers import has_answer, open_answers
from largede.retrieval.corpus import open_benchmark, open_corpus

CONTEXT = "Bern lies on the Aare. It has 134,000 inhabitants, says Dr. Keller. Thun lies there too."


def squad(*questions: Mapping[str, Any], context: str = CONTEXT, title: str = "Bern_(city)") -> bytes:
    return json.dumps({"data": [{"title": title, "paragraphs": [{"context": context, "qas": questions}]}]}).encode()


def asked(id_: str, *answers: tuple[str, int]) -> dict[str, Any]:
    spans = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": id_, "question": f"question {id_}?", "answers": spans}


def texts(folder: Path) -> dict[str, str]:
    return {document.id: document.text for document in open_corpus(folder).documents()}


def relevant(folder: Path) -> dict[str, set[str]]:
    found, by_id = open_benchmark(folder, "test").qrels, texts(folder)
    return {query: {by_id[document] for document in documents} for query, documents in found.items()}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LARGEDE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def test_the_sentence_of_each_answer_is_a_positive(tmp_path: Path, cache: Path) -> None:
    several = asked("two", ("the Aare", 13), ("there", CONTEXT.index("there")), ("Aare", 17))
    path = tmp_path / "mini.json"
    path.write_bytes(squad(asked("one", ("134,000", CONTEXT.index("134"))), several))
    (found,) = open_collections([f"reqa:{path}"])
    assert found.name == "mini-sentences"
    assert relevant(found.folder) == {
        "one": {"It has 134,000 inhabitants, says Dr. Keller."},
        "two": {"Bern lies on the Aare.", "Thun lies there too."},
    }


def test_questions_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "mini.json"
    impossible = {"id": "no", "question": "?", "answers": [], "is_impossible": True}
    shifted = asked("shifted", ("the Aare", 14))
    path.write_bytes(squad(asked("one", ("Aare", 17)), impossible, shifted))
    (tmp_path / "out").mkdir()
    counts = write_sentences(path, tmp_path / "out")
    assert counts == {"sentences": 3, "questions": 1, "questions left out": 2}


def test_equal_sentences_are_one_candidate(tmp_path: Path) -> None:
    paragraphs = [
        {"context": "Same words. Other words.", "qas": [asked("a", ("Same", 0))]},
        {"context": "New words. Same  words.", "qas": [asked("b", ("Same", 11))]},
    ]
    path = tmp_path / "mini.json"
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    (tmp_path / "out").mkdir()
    assert write_sentences(path, tmp_path / "out")["sentences"] == 3
    assert relevant(tmp_path / "out") == {"a": {"Same words."}, "b": {"Same words."}}


def test_a_squad_file_is_a_collection_with_answers(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "mini.json"
    path.write_bytes(squad(asked("one", ("Aare", 17), ("the Aare", 13), ("Aare", 17))))
    (found,) = open_collections([f"squad:{path}"])
    assert (found.name, found.has_answers, found.folder.parent) == ("mini", True, cache / "files")
    assert open_answers(found.folder) == {"one": ["Aare", "the Aare"]}
    assert relevant(found.folder) == {"one": {CONTEXT}}
    assert next(open_corpus(found.folder).documents()).title == "Bern (city)"


def test_a_file_is_converted_once_and_anew_when_it_changes(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mini.json"
    path.write_bytes(squad(asked("one", ("Aare", 17))))
    (first,) = open_collections([f"squad:{path}"])
    assert "1 passages, 1 questions" in capsys.readouterr().err
    assert open_collections([f"squad:{path}"]) == (first,)
    assert capsys.readouterr().err == ""
    path.write_bytes(squad(asked("two", ("Aare", 17))))
    (second,) = open_collections([f"squad:{path}"])
    assert second.folder != first.folder
    assert set(open_answers(second.folder)) == {"two"}


def test_mrqa_lines_are_read_as_they_come_gzipped(tmp_path: Path) -> None:
    question = {
        "qid": "q1",
        "question": "Where?",
        "answers": ["the Aare", "Aare"],
        "detected_answers": [{"text": "Aare", "char_spans": [[17, 20], [400, 403]]}],
    }
    records: list[Any] = [{"header": {"dataset": "SQuAD"}}, {"context": CONTEXT, "qas": [question]}]
    path = tmp_path / "dev.jsonl.gz"
    path.write_bytes(gzip.compress(lines(records)))
    (context,) = read_contexts(path)
    assert context.text == CONTEXT
    assert (context.questions[0].accepted, context.questions[0].starts) == (("the Aare", "Aare"), (17,))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no SQuAD or MRQA file"),
        (b"[1, 2]", "no SQuAD or MRQA file"),
        (b'{"data": {}}', "a JSON dict where a list belongs"),
        (b'{"data": [3]}', "a JSON int where an object belongs"),
        (b'{"data": [{"paragraphs": [{"qas": []}]}]}', "article 1, paragraph 1: no context"),
        (squad(asked("a b", ("Aare", 17))), "the question id 'a b'"),
        (squad(asked("a", ("Aare", 17)), asked("a", ("Aare", 17))), "'a' occurs twice"),
        (squad({"id": "a", "question": " ", "answers": []}), "question a: no text"),
        (squad({"id": "a", "question": "?", "answers": [{"text": "t"}]}), "no answer_start"),
        (squad({"id": "a", "question": "?", "answers": [{"text": 3, "answer_start": 0}]}), "text is a int"),
        (squad(asked("a")), "no question with an answer"),
        (b'{"header": {}}\n{"context": 3}', "line 2: context is a int"),
        (b'{"header": {}}\n{"context": "t", "qas": [', "line 2: bad JSON"),
        (b"\xff\xfe", "cannot be read"),
        (gzip.compress(squad(asked("a", ("Aare", 17))))[:-9], "cannot be read"),
    ],
)
def test_bad_files_are_one_message_and_leave_no_folder(tmp_path: Path, cache: Path, data: bytes, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        open_collections([f"reqa:{path}"])
    assert said in error.value.given
    assert str(path) in error.value.given
    assert not list((cache / "files").glob("reqa-*"))


@pytest.mark.parametrize("beginning", [b'{"data": ["', b'{"header": {}}\n{"context": "', b""])
def test_a_bomb_is_refused(tmp_path: Path, beginning: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squad_format, "MOST_LETTERS", 100_000)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(beginning + b" " * 1_000_000))
    with pytest.raises(DataError, match="more than 100,000 characters in one piece"):
        list(read_contexts(path))


def test_a_missing_file_is_said(cache: Path) -> None:
    with pytest.raises(DataError, match="there is no file nowhere.json"):
        open_collections(["squad:nowhere.json"])


@pytest.mark.parametrize(
    ("name", "contexts", "questions", "sentences"), [("new_wiki_v1.0", 1581, 7938, 7850), ("xquad.en", 240, 1190, 1170)]
)
def test_real_files_become_collections(name: str, contexts: int, questions: int, sentences: int, cache: Path) -> None:
    file = shared_data("squad_format", f"{name}.json")
    whole, parts = open_collections([f"squad:{file}", f"reqa:{file}"])
    assert len(texts(whole.folder)) == contexts
    assert len(open_answers(whole.folder)) == questions
    benchmark = open_benchmark(parts.folder, "test")
    assert len(benchmark.queries) == questions
    assert sentences * 0.98 < len(benchmark.corpus) < sentences * 1.02
    answers, by_id = open_answers(whole.folder), texts(parts.folder)
    holding = sum(
        any(has_answer(by_id[document], answers[query]) for document in documents)
        for query, documents in benchmark.qrels.items()
    )
    assert holding > 0.97 * questions, "the others' answers go on into the next sentence"


def test_dpr_passages_are_read_quoted_and_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "psgs.tsv.gz"
    path.write_bytes(gzip.compress('id\ttext\ttitle\n1\t"a ""b""\tc"\tT\n2\tüñ\t\n'.encode()))
    assert write_passages(path, tmp_path / "corpus.jsonl") == 2
    found = [(d.id, d.title, d.text) for d in open_corpus(tmp_path).documents()]
    assert found == [("1", "T", 'a "b"\tc'), ("2", "", "üñ")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"1\ttext\n", "line 1: 2 columns"),
        (b"id\ttext\ttitle\n", "no passage"),
        (b"\xff\tt\tt\n", "cannot be read"),
        (gzip.compress(b"1\tt\tt\n" * 99)[:-9], "cannot be read"),
    ],
)
def test_bad_passages_leave_no_corpus(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "psgs.tsv").write_bytes(data)
    with pytest.raises(DataError, match=said):
        write_passages(tmp_path / "psgs.tsv", tmp_path / "corpus.jsonl")
    assert not (tmp_path / "corpus.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("question alone", "1 columns"),
        ("q\t__import__('os').getcwd()", "the answers"),
        ("q\t['a', 3]", "the answers"),
        ("q\t[]", "the answers"),
        ("q\t" + "(" * 10_000, "the answers"),
    ],
)
def test_bad_answers_are_refused_and_nothing_is_run(tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "nq.csv").write_text(f"good\t['a']\n{row}\n")
    with pytest.raises(DataError, match=f"line 2: .*{said}"):
        write_answered_queries(tmp_path / "nq.csv", tmp_path / "queries.jsonl", "nq")
    assert not (tmp_path / "queries.jsonl").exists()


@pytest.mark.parametrize(
    ("queries", "qrels", "said"),
    [
        ("q1\n", "q1 0 d 1\n", "line 1: 'q1'"),
        ("q1\ttext\n", "q1 0 d\n", "line 1: 'q1 0 d'"),
        ("q1\ttext\n", "q1 0 d high\n", "line 1"),
        ("q1\ttext\n", "q2 0 d 1\n", "the judged query 'q2'"),
        ("q1\ttext\n", "", "no judgement"),
    ],
)
def test_bad_trec_files_are_refused(tmp_path: Path, queries: str, qrels: str, said: str) -> None:
    (tmp_path / "queries.tsv").write_text(queries)
    (tmp_path / "qrels.txt").write_text(qrels)
    with pytest.raises(DataError, match=said):
        write_trec_queries(tmp_path / "queries.tsv", tmp_path / "qrels.txt", tmp_path / "out")
