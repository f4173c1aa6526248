from pathlib import Path
from typing import Any

import pytest
from labelled_files import lines_written, pairs_in

from data_tools.readers import sentence_transformers
from data_tools.readers.labelled import LabelledOptions
from largede.streams.pair import Pair


def read(tmp_path: Path, *records: Any, **options: Any) -> Any:
    path = lines_written(tmp_path / "set.jsonl", records)
    return pairs_in(sentence_transformers, path, LabelledOptions("s", **options))


@pytest.mark.parametrize(
    ("record", "pairs"),
    [
        (["q", "p"], [Pair("q", "p", source="s")]),
        (["q", "p", "n"], [Pair("q", "p", negatives=("n",), source="s")]),
        ({"query": "q", "pos": ["p"]}, [Pair("q", "p", source="s")]),
        ({"query": "q", "pos": "p", "neg": "n"}, [Pair("q", "p", negatives=("n",), source="s")]),
        (
            {"query": "q", "pos": ["p", "r"], "neg": ["n", "m"]},
            [
                Pair("q", "p", negatives=("n", "m"), other_positives=("r",), source="s"),
                Pair("q", "r", negatives=("n", "m"), other_positives=("p",), source="s"),
            ],
        ),
        (
            {"set": ["a", "b", " a ", "c"]},
            [
                Pair("a", "b", other_positives=("c",), source="s"),
                Pair("b", "c", other_positives=("a",), source="s"),
            ],
        ),
    ],
)
def test_each_published_form_is_read(tmp_path: Path, record: Any, pairs: list[Pair]) -> None:
    assert read(tmp_path, record) == (pairs, {})


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (["q"], "list that is neither of two nor of three texts"),
        (["a", "b", "c", "d"], "list that is neither of two nor of three texts"),
        (["q", "p", 0.8], "negative that is no text"),
        (["q", ""], "no positive, or an empty one"),
        ({"set": ["a", "a"]}, "set of fewer than two different texts"),
        ({"set": "text"}, "texts of a set that are no list"),
        ({"query": "q", "pos": []}, "query without a positive"),
        ({"query": "q", "pos": {"a": 1}}, "positives or negatives that are no list"),
        ({"texts": ["a", "b"]}, "no query, or an empty one"),
        ("text", "record that is no JSON object"),
        (None, "record that is no JSON object"),
    ],
)
def test_other_forms_are_counted(tmp_path: Path, record: Any, reason: str) -> None:
    pairs, dropped = read(tmp_path, record, ["q", "p"])
    assert pairs == [Pair("q", "p", source="s")]
    assert dropped == {reason: 1}


def test_a_large_set_makes_no_more_pairs_than_allowed(tmp_path: Path) -> None:
    pairs, dropped = read(tmp_path, {"set": [str(n) for n in range(10)]}, max_positives=3)
    assert [(pair.query, pair.positive) for pair in pairs] == [("0", "1"), ("1", "2"), ("2", "3")]
    assert dropped == {"text of a set beyond --max-positives": 6}
