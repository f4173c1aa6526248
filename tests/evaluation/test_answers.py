"""Answer recall: DPR's matching on hostile cases, and equality with a plain twin."""

import importlib.util
import json
import random
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beir_folder import shared_data, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from largede.errors import DataError
from largede.evaluation.datasets.squad_format import read_contexts
from largede.evaluation.measures import answers as answers_module
from largede.evaluation.measures.answers import answer_recall, has_answer, open_answers
from largede.retrieval.corpus import Corpus, Document, open_corpus
from largede.retrieval.runs import Ranking, Run


def plain_tokens(text: str) -> list[str]:
    """DPR's tokenizer, letter by letter from the Unicode categories."""
    tokens: list[str] = []
    in_word = False
    for letter in unicodedata.normalize("NFD", text):
        kind = unicodedata.category(letter)[0]
        if kind in "LNM":
            tokens = [*tokens[:-1], tokens[-1] + letter] if in_word else [*tokens, letter]
        elif kind in "PS":
            tokens = [*tokens, letter]
        in_word = kind in "LNM"
    return [token.lower() for token in tokens]


def plain_has_answer(text: str, accepted: list[str]) -> bool:
    hay = plain_tokens(text)
    for answer in accepted:
        needle = plain_tokens(answer)
        if needle and any(hay[i : i + len(needle)] == needle for i in range(len(hay))):
            return True
    return False


def plain_recall(run: Run, texts: dict[str, str], accepted: dict[str, list[str]], cut: int) -> dict[str, float]:
    return {
        query: float(
            any(plain_has_answer(texts[id_], wanted) for id_ in (run[query].ids if query in run else ())[:cut])
        )
        for query, wanted in accepted.items()
    }


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("the cat sat", "cat", True),
        ("the CAT sat", "Cat", True),
        ("concatenate", "cat", False),
        ("the cats sat", "cat", False),
        ("the cat sat", "cat sat", True),
        ("the cat, sat", "cat sat", False),
        ("the cat, sat", "cat , sat", True),
        ("cat\nsat\tdown", "cat  sat", True),
        ("in Zürich today", "Zu\u0308rich", True),
        ("in Zürich today", "Zurich", False),
        ("the café", "CAFÉ", True),
        ("ﬁne print", "fine", False),  # NFD, not NFKD: ligatures stay
        ("it cost $5.00", "5.00", True),
        ("it cost $5.00", "5", True),
        ("it cost $500", "5", False),
        ("route66 is long", "66", False),
        ("H2O is water", "H2O", True),
        ("the U.S. army", "U.S.", True),
        ("the US army", "U.S.", False),
        ("Jean-Luc came", "jean luc", False),
        ("Jean-Luc came", "Jean-Luc", True),
        ("he's here", "he's", True),
        ("東京は大きい", "東京", False),  # no space, one token: as DPR does
        ("東京 は 大きい", "東京", True),
        ("Καλημέρα ΚΟΣΜΟΣ", "κοσμος", True),  # the last sigma of a word is another letter
        ("ΟΔΟΣ'Α", "οδος ' α", True),
        ("İstanbul", "i\u0307stanbul", True),
        ("zero\u200bwidth", "zerowidth", False),
        ("zero\u200bwidth", "zero width", True),  # a format character parts tokens
        ("non\u00a0breaking", "non breaking", True),
        ("a 👍🏽 b", "👍", True),
        ("short", "a much longer answer than the passage", False),
        ("the answer", "answer and more", False),
        ("", "a", False),
        ("anything", "", False),
        ("anything", " \n", False),
        ("anything", "\u200b", False),
        ("x² + y", "x²", True),
        ("a ≠ b", "=", True),  # NFD takes the stroke off
        ("１２ apples", "12", False),
    ],
)
def test_an_answer_stands_in_a_passage_or_not(text: str, answer: str, found: bool) -> None:
    assert has_answer(text, [answer]) is found
    assert plain_has_answer(text, [answer]) is found


def test_one_of_several_answers_is_enough() -> None:
    assert has_answer("the cat sat", ["dog", "", "sat"])
    assert not has_answer("the cat sat", [])


@settings(max_examples=400, deadline=None)
@given(
    st.text(alphabet=st.sampled_from(list("aAbé ́Σσ'ς.İ-1 \u200b東\n")) | st.characters(codec="utf-8"), max_size=24),
    st.text(alphabet=st.sampled_from(list("aAbé ́Σσ'ς.İ-1 \u200b東\n")), max_size=4),
)
def test_matching_equals_the_plain_twin(text: str, answer: str) -> None:
    assert has_answer(text, [answer]) is plain_has_answer(text, [answer])


@cache
def dprs_own_code() -> Any:
    """The one file of Pyserini that carries it; Pyserini itself must not be imported in this process (test_bm25)."""
    package = importlib.util.find_spec("pyserini")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "eval" / "evaluate_dpr_retrieval.py"
    spec = importlib.util.spec_from_file_location("dprs_own_code", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@settings(max_examples=150, deadline=None)
@given(
    st.text(alphabet=st.sampled_from(list("aAbé ́Σσ'ς.İ≠-1 \u200b東\n")) | st.characters(codec="utf-8"), max_size=24),
    st.text(alphabet=st.sampled_from(list("aAbé ́Σσ'ς.İ=-1 \u200b東\n")), max_size=4),
)
def test_matching_equals_dprs_own_code(text: str, answer: str) -> None:
    """As Pyserini carries it; an answer without tokens is the one difference."""
    dpr = dprs_own_code()
    if plain_tokens(answer):
        assert has_answer(text, [answer]) is dpr.has_answers(text, [answer], dpr.SimpleTokenizer())


def test_real_questions_and_passages_match_as_with_dprs_own_code() -> None:
    dpr = dprs_own_code()
    contexts = list(read_contexts(shared_data("squad_format", "xquad.en.json")))
    questions = [question for context in contexts for question in context.questions]
    rng = random.Random(5)
    found = []
    for context in contexts[::4]:
        accepted = [list(question.accepted) for question in (*context.questions, *rng.sample(questions, 10))]
        found += [has_answer(context.text, wanted) for wanted in accepted]
        assert found[-len(accepted) :] == [
            dpr.has_answers(context.text, wanted, dpr.SimpleTokenizer()) for wanted in accepted
        ]
    assert 0.2 < sum(found) / len(found) < 0.8


def made(folder: Path, documents: int = 60, queries: int = 25) -> tuple[Corpus, Run, dict[str, list[str]]]:
    rng = random.Random(3)
    words = ["Zürich", "cat", "sat", "on", "the", "mat,", "5.00", "U.S.", "東京"]
    rows = [{"_id": f"d{i}", "title": "cat", "text": " ".join(rng.choices(words, k=3))} for i in range(documents)]
    write_jsonl(folder / "corpus.jsonl", rows)
    run: Run = {}
    accepted: dict[str, list[str]] = {}
    for number in range(queries):
        accepted[f"q{number}"] = [
            " ".join(rng.choices(words, k=rng.choice([1, 2, 2]))) for _ in range(rng.choice([1, 2]))
        ]
        if number % 7:
            ids = tuple(f"d{row}" for row in rng.sample(range(documents), rng.choice([3, 12, 40])))
            run[f"q{number}"] = Ranking(ids, np.arange(len(ids), 0, -1, dtype=np.float32))
    return open_corpus(folder), run, accepted


def test_recall_at_every_cut_equals_the_plain_twin(tmp_path: Path) -> None:
    corpus, run, accepted = made(tmp_path)
    texts = {document.id: document.text for document in corpus.documents()}
    found = answer_recall(run, corpus, accepted, (1, 5, 20, 50))
    assert list(found) == ["Answer@1", "Answer@5", "Answer@20", "Answer@50"]
    for cut in (1, 5, 20, 50):
        assert found[f"Answer@{cut}"] == plain_recall(run, texts, accepted, cut)
    means = [sum(values.values()) for values in found.values()]
    assert 0 < means[0] < means[1] < means[-1] < len(accepted), "the made data tells the cuts apart"


def test_a_passage_is_read_once_per_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, run, accepted = made(tmp_path)
    reads: list[list[str]] = []

    def counted(self: Corpus, rows: object) -> object:
        reads.append([])
        for document in at(self, rows):  # type: ignore[arg-type]
            reads[-1].append(document.id)
            yield document

    at = Corpus.at
    monkeypatch.setattr(Corpus, "at", counted)
    answer_recall(run, corpus, accepted, (1, 5, 20))
    assert len(reads) == 3
    for window in reads:
        assert len(window) == len(set(window))
        assert window == sorted(window, key=corpus.ids.index), "in the order of the corpus"
    first = {run[query].ids[0] for query in run}
    assert set(reads[0]) == first
    texts = {document.id: document.text for document in corpus.documents()}
    answered = plain_recall(run, texts, accepted, 1)
    assert set(reads[1]) == {id_ for query in run if not answered[query] for id_ in run[query].ids[1:5]}


def test_titles_are_not_looked_at(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "d", "title": "Bern", "text": "a city"}])
    run = {"q": Ranking(("d",), np.ones(1, dtype=np.float32))}
    assert answer_recall(run, open_corpus(tmp_path), {"q": ["Bern"]}, (1,)) == {"Answer@1": {"q": 0.0}}
    assert Document("d", "Bern", "a city").contents == "Bern a city"


def test_a_query_without_results_counts_as_zero_and_an_empty_run_too(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "d", "text": "a city"}])
    corpus = open_corpus(tmp_path)
    run = {"a": Ranking(("d",), np.ones(1, dtype=np.float32))}
    accepted = {"a": ["city"], "b": ["city"]}
    assert answer_recall(run, corpus, accepted, (1, 2))["Answer@2"] == {"a": 1.0, "b": 0.0}
    assert answer_recall({}, corpus, accepted, (1,))["Answer@1"] == {"a": 0.0, "b": 0.0}


def test_a_run_over_another_corpus_and_senseless_cuts_are_refused(tmp_path: Path) -> None:
    corpus, run, accepted = made(tmp_path)
    run["q1"] = Ranking(("nowhere",), np.ones(1, dtype=np.float32))
    with pytest.raises(DataError, match="'nowhere', which is not in the corpus"):
        answer_recall(run, corpus, accepted)
    for cuts in ((), (0, 5), (-1,)):
        with pytest.raises(DataError, match="the cuts"):
            answer_recall({}, corpus, accepted, cuts)


@pytest.mark.parametrize(
    "line",
    [
        '{"_id": "q", "text": "t"}',
        '{"_id": "q", "text": "t", "metadata": {"answers": []}}',
        '{"_id": "q", "text": "t", "metadata": {"answers": ["", " "]}}',
        '{"_id": "q", "text": "t", "metadata": {"answers": "a"}}',
        '{"_id": "q", "text": "t", "metadata": {"answers": [1]}}',
        '{"_id": 3, "text": "t", "metadata": {"answers": ["a"]}}',
        "[1]",
        "{",
    ],
)
def test_questions_without_answers_are_refused(tmp_path: Path, line: str) -> None:
    good = json.dumps({"_id": "good", "text": "t", "metadata": {"answers": ["a"]}})
    (tmp_path / "queries.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(DataError, match="line 2: a question without answers"):
        open_answers(tmp_path)
    (tmp_path / "queries.jsonl").write_text(f"{good}\n\n")
    assert open_answers(tmp_path) == {"good": ["a"]}


def test_the_module_knows_dprs_cuts() -> None:
    assert answers_module.ANSWER_CUTS == (1, 5, 20, 50, 100)
