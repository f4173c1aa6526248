import gzip
import json
from pathlib import Path

import pytest
from beir_folder import shared_data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelled_files import lines_written, pairs_in, written

from data_tools.readers import jsonl
from data_tools.readers.fields import FieldOptions
from largede.errors import DataError
from largede.streams.pair import Pair

TEXT = st.text(min_size=1).map(str.strip).filter(bool)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(
        Pair,
        query=TEXT,
        positive=TEXT.map("right {}".format),
        title=st.text().map(str.strip),
        negatives=st.lists(TEXT.map("wrong {}".format), unique=True).map(tuple),
        negative_titles=st.just(()),
        query_id=TEXT,
        positive_id=st.text().map(str.strip),
        negative_ids=st.just(()),
        group=TEXT,
        other_positives=st.lists(TEXT).map(tuple),
        source=TEXT,
        score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_pairs_of_largede_are_read_as_they_were_written(tmp_path: Path, pair: Pair) -> None:
    path = lines_written(tmp_path / "a.jsonl", [pair.to_dict()])
    assert pairs_in(jsonl, path, FieldOptions()) == ([pair], {})


def test_fields_may_have_any_name_and_the_source_defaults_to_the_file(tmp_path: Path) -> None:
    record = {"q": " asked ", "a": "answer", "heading": "t", "n1": "bad", "n2": ["worse", {"id": 7, "text": "worst"}]}
    path = lines_written(tmp_path / "forum.train.jsonl", [{**record, "votes": 3, "thread": 12}])
    fields = {
        "query_field": "q",
        "positive_field": "a",
        "title_field": "heading",
        "negatives_field": "n1, n2",
        "group_field": "thread",
        "score_field": "votes",
    }
    expected = Pair(
        "asked",
        "answer",
        "t",
        ("bad", "worse", "worst"),
        negative_ids=("", "", "7"),
        group="12",
        source="forum",
        score=3,
    )
    assert pairs_in(jsonl, path, FieldOptions(**fields)) == ([expected], {})
    assert pairs_in(jsonl, path, FieldOptions(**fields, source="web"))[0][0].source == "web"


def test_each_of_several_positives_makes_a_pair_that_knows_the_others(tmp_path: Path) -> None:
    positives = ["one", {"id": "2", "title": "t", "text": "two"}, "one", {"text": "three"}]
    record = {"query": "q", "positive": positives, "negatives": ["bad", "three"], "other_positives": ["x"]}
    path = lines_written(tmp_path / "a.jsonl", [record])
    pairs, dropped = pairs_in(jsonl, path, FieldOptions())
    assert [(p.positive, p.title, p.positive_id, p.other_positives) for p in pairs] == [
        ("one", "", "", ("2", "three", "x")),
        ("two", "t", "2", ("one", "three", "x")),
        ("three", "", "", ("one", "2", "x")),
    ]
    assert all(p.negatives == ("bad",) for p in pairs)
    assert dropped == {"positive listed twice, or under two ids": 1, "negative listed twice, or also a positive": 1}
    few, dropped = pairs_in(jsonl, path, FieldOptions(max_positives=2, max_negatives=0))
    assert [(p.positive, p.other_positives, p.negatives) for p in few] == [
        ("one", ("2", "x"), ()),
        ("two", ("one", "x"), ()),
    ]
    assert dropped["positive beyond --max-positives"] == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"query": "q", "positive": ', "line that is not JSON"),
        ("[" * 100_000, "line that is not JSON"),
        ('["q", "p"]', "record that is no JSON object"),
        ('{"query": " ", "positive": "p"}', "no query, or an empty one"),
        ('{"query": ["q"], "positive": "p"}', "query that is no text"),
        ('{"query": "q"}', "no positive, or an empty one"),
        ('{"query": "q", "positive": []}', "query without a positive"),
        ('{"query": "q", "positive": 5}', "positive that is no text"),
        ('{"query": "\\ud83d", "positive": "p"}', "query with half a Unicode character"),
        ('{"query": "q", "positive": "p", "negatives": 3}', "negatives that are no list"),
        ('{"query": "q", "positive": "p", "score": "high"}', "score that is no finite number"),
        ('{"query": "q", "positive": "p", "query_id": true}', "query id that is no text"),
    ],
)
def test_a_bad_line_is_counted_with_its_place_and_passed_over(tmp_path: Path, line: str, reason: str) -> None:
    good = '{"query": "q", "positive": "p"}\n'
    path = written(tmp_path / "a.jsonl", f"{good}\n{line}\n{good}")
    pairs, dropped = pairs_in(jsonl, path, FieldOptions())
    assert len(pairs) == 2
    assert dropped == {reason: 1}
    assert dropped.examples == {reason: f"{path} line 3"}


def test_a_bad_negative_is_counted_and_its_pair_kept(tmp_path: Path) -> None:
    negatives = ["good", "", 5, {"title": "only a title"}]
    path = lines_written(tmp_path / "a.jsonl", [{"query": "q", "positive": "p", "negatives": negatives}])
    pairs, dropped = pairs_in(jsonl, path, FieldOptions())
    assert pairs[0].negatives == ("good", "only a title")
    assert dropped == {"no negative, or an empty one": 1, "negative that is neither text nor an object": 1}


def test_a_line_that_is_not_utf8_is_counted_and_a_cut_archive_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"query": "\xff", "positive": "p"}\n')
    assert pairs_in(jsonl, path, FieldOptions())[1] == {"line that is not UTF-8": 1}
    cut = tmp_path / "a.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"query": "q", "positive": "p"}\n' * 1000)[:-9])
    with pytest.raises(DataError, match="cannot be decompressed"):
        pairs_in(jsonl, cut, FieldOptions())


@pytest.mark.parametrize("name", ["squad_dev", "stackexchange", "wikiqa_train", "clapnq", "qed_nq"])
def test_real_pairs_are_read_without_loss(name: str) -> None:
    path = shared_data("pairs", f"{name}.jsonl.gz")
    pairs, dropped = pairs_in(jsonl, path, FieldOptions())
    assert not dropped
    with gzip.open(path) as lines:
        expected = [Pair.from_dict({**json.loads(line), "source": name}, "here") for line in lines]
    assert pairs == expected
