import pytest
from hypothesis import given
from hypothesis import strategies as st

from largede.errors import DataError
from largede.streams.pair import Pair

SAFE = st.characters(exclude_categories=("Cs",))
TEXT = st.text(SAFE).map(str.strip)
FULL = TEXT.filter(bool)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    count = draw(st.integers(0, 3))
    column = st.lists(TEXT, min_size=count, max_size=count).map(tuple).map(lambda row: row if any(row) else ())
    negatives = tuple(draw(st.lists(FULL, min_size=count, max_size=count)))
    others = tuple(draw(st.lists(FULL, max_size=2)))
    texts = (draw(FULL), draw(FULL), draw(TEXT))
    ids = (draw(TEXT), draw(TEXT), draw(column))
    score = draw(st.none() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False))
    return Pair(*texts, negatives, draw(column), *ids, other_positives=others, source=draw(TEXT), score=score)


@given(pairs())
def test_a_pair_survives_its_json_form(pair: Pair) -> None:
    assert Pair.from_dict(pair.to_dict(), "here") == pair


def test_texts_are_stripped_and_numbers_become_ids() -> None:
    record = {
        "query": " q ",
        "positive": "p\n",
        "query_id": 7,
        "negatives": ["a", {"id": 3, "title": "t", "text": "b"}],
    }
    pair = Pair.from_dict(record, "here")
    assert (pair.query, pair.positive, pair.query_id) == ("q", "p", "7")
    assert (pair.negatives, pair.negative_titles, pair.negative_ids) == (("a", "b"), ("", "t"), ("", "3"))


def test_other_positives_are_ids_or_whole_texts() -> None:
    others = [17, "d2", {"id": "d3", "title": "t", "text": "b"}, {"text": "c"}]
    pair = Pair.from_dict({"query": "q", "positive": "p", "other_positives": others}, "here")
    assert pair.other_positives == ("17", "d2", "d3", "t b", "c")


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ([1], "x line 2 holds a list"),
        ({"positive": "p"}, "x line 2 has no query, or an empty one"),
        ({"query": "q", "positive": " \t"}, "x line 2 has no positive, or an empty one"),
        ({"query": 3, "positive": "p"}, 'x line 2 has a number under "query"'),
        ({"query": "q", "positive": ["p"]}, 'x line 2 has a list under "positive"'),
        ({"query": "q", "positive": "p", "query_id": True}, 'x line 2 has true or false under "query_id"'),
        ({"query": "q", "positive": "p", "negatives": "n"}, 'x line 2 has text under "negatives"'),
        ({"query": "q", "positive": "p", "negatives": {}}, 'x line 2 has an object under "negatives"'),
        ({"query": "q", "positive": "p", "other_positives": "d"}, 'x line 2 has text under "other_positives"'),
        (
            {"query": "q", "positive": "p", "other_positives": [{}]},
            "x line 2, other positive 1 has neither id nor text",
        ),
        ({"query": "q", "positive": "p", "negatives": ["n", 1]}, "x line 2, negative 2 is a number"),
        ({"query": "q", "positive": "p", "negatives": [{"title": "t"}]}, "x line 2, negative 1 has no text"),
        ({"query": "q", "positive": "p", "score": "3"}, 'x line 2 has text under "score"'),
        ({"query": "q", "positive": "p", "score": float("nan")}, 'x line 2 has a number under "score"'),
        ({"query": "q", "positive": "p\ud83d"}, 'x line 2 has half a Unicode character under "positive"'),
    ],
)
def test_what_is_no_pair_is_refused_by_place(record: object, complaint: str) -> None:
    with pytest.raises(DataError) as raised:
        Pair.from_dict(record, "x line 2")
    assert raised.value.given.startswith(complaint)
