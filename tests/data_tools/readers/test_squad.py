import json
from pathlib import Path
from typing import Any

import pytest
from beir_folder import shared_data
from labelled_files import pairs_in, written

from data_tools.readers import squad
from data_tools.readers.squad import SquadOptions
from largede.errors import DataError
from largede.streams.pair import Pair


def document(*articles: Any) -> str:
    return json.dumps({"version": "v2.0", "data": articles})


def read(tmp_path: Path, text: str) -> Any:
    return pairs_in(squad, written(tmp_path / "train-v2.0.json", text), SquadOptions())


def test_questions_are_paired_with_their_paragraph_and_grouped_by_article(tmp_path: Path) -> None:
    paragraph = {"context": "c", "qas": [{"id": "1", "question": "q1", "answers": []}, {"id": "2", "question": "q2"}]}
    pairs, dropped = read(tmp_path, document({"title": "New_York", "paragraphs": [paragraph]}))
    assert pairs == [
        Pair("q1", "c", "New York", query_id="1", group="New York", source="train-v2"),
        Pair("q2", "c", "New York", query_id="2", group="New York", source="train-v2"),
    ]
    assert not dropped


def test_questions_without_an_answer_and_broken_parts_are_counted(tmp_path: Path) -> None:
    questions = [{"question": "?", "is_impossible": True}, {"question": " "}, "q", {"question": "q", "id": 5}]
    paragraphs = [{"context": "c", "qas": questions}, {"qas": questions}, {"context": "c", "qas": {}}, 3]
    articles = [{"title": "t", "paragraphs": paragraphs}, {"title": [], "paragraphs": []}, {"paragraphs": {}}, 7]
    pairs, dropped = read(tmp_path, document(*articles))
    assert pairs == [Pair("q", "c", "t", query_id="5", group="t", source="train-v2")]
    assert dropped == {
        "question that its paragraph does not answer": 1,
        "no query, or an empty one": 1,
        "record that is no JSON object": 3,
        "no context, or an empty one": 1,
        "questions that are no list": 1,
        "title that is no text": 1,
        "paragraphs that are no list": 1,
    }
    where = f"{tmp_path / 'train-v2.0.json'} article 1 paragraph 1 question 1"
    assert dropped.examples["question that its paragraph does not answer"] == where


@pytest.mark.parametrize("text", [document({"title": "t", "paragraphs": []})[:-2], "[]", '{"version": "1"}', ""])
def test_files_of_another_kind_and_cut_ones_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"train-v2\.0\.json cannot be read at character"):
        read(tmp_path, text)


@pytest.mark.parametrize(("name", "questions"), [("new_wiki_v1.0", 7938), ("xquad.en", 1190)])
def test_real_files_are_read_without_loss(name: str, questions: int) -> None:
    path = shared_data("squad_format", f"{name}.json")
    pairs, dropped = pairs_in(squad, path, SquadOptions())
    assert not dropped
    articles = json.loads(path.read_bytes())["data"]
    expected = [
        (question["question"].strip(), paragraph["context"].strip(), question["id"])
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    assert [(pair.query, pair.positive, pair.query_id) for pair in pairs] == expected
    assert len(pairs) == questions
