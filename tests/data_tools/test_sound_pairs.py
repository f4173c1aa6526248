"""The check of whole columns against its plain twin, the check of every pair."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_tools.sound_pairs import all_sound, pair_problem
from largede.streams.pair import Pair

SOUND = Pair("q", "p", "t", ("n", "m"), ("", "t"), "1", "2", ("a", "b"), "g", ("o",), "s", 1.5)

texts = st.sampled_from(["", "a", "b c", " a", "a\n", "é"])
anything = st.one_of(texts, st.none(), st.integers(-1, 1), st.floats(), st.booleans(), st.lists(texts, max_size=2))
lists = st.lists(st.one_of(texts, texts, st.none(), st.integers()), max_size=3).map(tuple)
values = {
    **dict.fromkeys(("query", "positive", "title", "query_id", "positive_id", "group", "source"), texts),
    **dict.fromkeys(("negatives", "negative_titles", "negative_ids", "other_positives"), lists),
    "score": st.one_of(st.none(), st.floats(), st.integers(), st.booleans(), texts),
}


@st.composite
def nearly_sound(draw: Any) -> Pair:
    """A sound pair with a few fields changed, now and then into a value of the wrong kind."""
    names = draw(st.lists(st.sampled_from(Pair._fields), max_size=3, unique=True))
    kinds = draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    changed = {n: draw(anything if wrong else values[n]) for n, wrong in zip(names, kinds, strict=True)}
    return SOUND._replace(**changed)


@settings(max_examples=300, deadline=None)
@given(st.lists(nearly_sound(), min_size=1, max_size=3))
@example([SOUND])
@example([Pair("q", "p"), SOUND])
@example([Pair("q", "p", negatives=("n",), negative_ids=("",))])
def test_columns_and_single_pairs_get_the_same_answer(pairs: list[Pair]) -> None:
    assert all_sound(pairs) == all(pair_problem(pair, "here") is None for pair in pairs)


def test_a_sound_pair_is_sound() -> None:
    assert all_sound([SOUND, Pair("q", "p")])
