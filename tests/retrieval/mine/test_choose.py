"""What may be a negative of a pair, reason by reason, on lists made by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from largede.retrieval.mine.choose import Chooser
from largede.retrieval.mine.pool import NO_KEY, KeyTable, PoolPair, Tables, normalised
from largede.retrieval.mine.settings import MineSettings
from largede.retrieval.runs import Ranking
from largede.streams.pair import Pair
from largede.text import text_key

TEXTS = [
    "the positive",
    "another answer",
    "THE  Positive!",
    "what is it?",
    "a neighbour of the group",
    "",
    "a close one",
    "a plain one",
    "a far one",
    "far, a one",
    "A far one.",
]
POSITIVE, OTHER, COPY, QUERY, NEIGHBOUR, EMPTY, CLOSE, PLAIN, FAR, WORDS, TWIN = range(len(TEXTS))
PAIR = Pair("what is it", "the positive", group="g", other_positives=("another answer",))


def tables() -> Tables:
    text = [text_key(t) if t else NO_KEY for t in TEXTS]
    normal = [text_key(normalised(t)) if t else NO_KEY for t in TEXTS]
    answers = KeyTable.of(np.array([text_key(PAIR.query)]), np.array([POSITIVE]))
    groups = KeyTable.of(np.array([text_key("g")] * 2), np.array([POSITIVE, NEIGHBOUR]))
    return Tables(np.array(text), np.array(normal), np.full(len(TEXTS), NO_KEY), answers, groups)


def ranking(scores: dict[int, float]) -> Ranking:
    return Ranking(tuple(f"p{row}" for row in scores), np.array(list(scores.values()), dtype=np.float32))


ALL = {
    CLOSE: 0.9,
    POSITIVE: 0.8,
    OTHER: 0.79,
    COPY: 0.78,
    QUERY: 0.7,
    NEIGHBOUR: 0.6,
    EMPTY: 0.5,
    PLAIN: 0.45,
    FAR: 0.4,
    TWIN: 0.3,
    WORDS: 0.2,
}


def chosen(
    lists: dict[str, dict[int, float]],
    scored: dict[int, float] | None = None,
    pair: Pair = PAIR,
    known: Tables | None = None,
    **settings: Any,
) -> Any:
    """(rows chosen, what was left out by reason)."""
    ids = tuple(f"p{row}" for row in range(len(TEXTS)))
    pool = SimpleNamespace(
        tables=known or tables(), row_of={id_: row for row, id_ in enumerate(ids)}, corpus=SimpleNamespace(ids=ids)
    )
    made = SimpleNamespace(
        pool=pool,
        read=lambda name: {"q": ranking(lists[name])},
        scored=lambda: {"q": ranking(scored)} if scored else {},
    )
    wanted = MineSettings(**{"lists": tuple(lists), "pick": "top", "ranks": (1, 50), "negatives": 20, **settings})
    chooser = Chooser(made, wanted)  # type: ignore[arg-type]
    rows = chooser.negatives(PoolPair("q", POSITIVE, pair))
    return rows, {reason: count for reason, count in chooser.tally.left_out.items() if count}


def test_every_reason_to_leave_a_candidate_out_is_counted() -> None:
    rows, left_out = chosen({"dense": ALL})
    assert rows == [CLOSE, PLAIN, FAR, WORDS]
    assert left_out == {
        "known positive": 2,
        "text of a positive": 1,
        "text of the query": 1,
        "group of the pair": 1,
        "no text": 1,
        "text of another negative": 1,
    }


def test_pairs_of_the_group_may_be_allowed() -> None:
    assert NEIGHBOUR in chosen({"dense": ALL}, same_group=True)[0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"margin": 0.0}, [PLAIN, FAR, WORDS]),
        ({"margin": 0.38}, [FAR, WORDS]),
        ({"max_share": 0.55}, [FAR, WORDS]),
        ({"max_share": 0.55, "margin": 0.5}, [TWIN, WORDS]),
    ],
)
def test_a_negative_scores_less_than_the_positive_by_a_margin_or_a_share(
    settings: dict[str, float], expected: list[int]
) -> None:
    assert chosen({"dense": ALL}, **settings)[0] == expected


def test_a_share_of_a_score_below_zero_never_allows_more_than_the_score() -> None:
    below = {row: score - 1.0 for row, score in ALL.items()}
    rows, _ = chosen({"dense": below}, max_share=0.9)
    assert rows == [PLAIN, FAR, WORDS]


def test_ranks_are_counted_with_the_positives_in_them() -> None:
    assert chosen({"dense": ALL}, ranks=(2, 8))[0] == [PLAIN]
    assert chosen({"dense": ALL}, ranks=(9, 9))[0] == [FAR]


def test_lists_give_in_turn_and_by_their_shares_and_no_passage_twice() -> None:
    dense, bm25 = {CLOSE: 0.9, PLAIN: 0.8, FAR: 0.7}, {WORDS: 9.0, PLAIN: 8.0, CLOSE: 7.0}
    assert chosen({"dense": dense, "bm25": bm25})[0] == [CLOSE, WORDS, PLAIN, FAR]
    assert chosen({"dense": dense, "bm25": bm25}, shares=(1.0, 3.0))[0][:3] == [WORDS, PLAIN, CLOSE]
    assert chosen({"dense": dense, "bm25": bm25}, shares=(3.0, 1.0), negatives=3)[0] == [CLOSE, PLAIN, FAR]


def test_what_bm25_alone_found_is_held_against_the_margin_too() -> None:
    scored = {POSITIVE: 0.5, WORDS: 0.49, TWIN: 0.1}
    rows, left_out = chosen({"dense": {FAR: 0.2}, "bm25": {WORDS: 9.0, TWIN: 8.0}}, scored, margin=0.05)
    assert rows == [FAR]  # the twin has the same words
    assert left_out == {"too close to the positive": 1, "text of another negative": 1}


def test_agreement_leaves_out_what_both_lists_put_above_the_positive() -> None:
    dense = {CLOSE: 0.9, PLAIN: 0.85, POSITIVE: 0.8, FAR: 0.1}
    below = {CLOSE: 9.0, POSITIVE: 8.0, PLAIN: 7.0}
    missing = {CLOSE: 9.0, PLAIN: 7.0}
    scored = {WORDS: 0.0}
    assert chosen({"dense": dense, "bm25": below}, scored, agreement=True)[0] == [PLAIN, FAR]
    # A positive that BM25 does not find at all is below all that it finds.
    rows, left_out = chosen({"dense": dense, "bm25": missing}, scored, agreement=True)
    assert rows == [FAR] and left_out["above the positive twice"] == 4
    assert CLOSE in chosen({"dense": dense, "bm25": below}, scored)[0]


def test_a_draw_is_a_function_of_seed_and_pair() -> None:
    many = dict(ALL)
    one, again = (chosen({"dense": many}, pick="sample", negatives=2, seed=5)[0] for _ in range(2))
    others = {tuple(chosen({"dense": many}, pick="sample", negatives=2, seed=seed)[0]) for seed in range(8)}
    assert one == again and len(others) > 2
    assert all(set(drawn) <= {CLOSE, PLAIN, FAR, TWIN, WORDS} for drawn in others)


def test_copies_of_a_positive_that_is_named_by_its_id_are_left_out() -> None:
    known = tables()
    known.id[FAR] = text_key("p8")
    pair = PAIR._replace(other_positives=("p8",))
    rows, left_out = chosen({"dense": ALL}, pair=pair, known=known)
    assert rows == [CLOSE, OTHER, PLAIN, WORDS] and left_out["known positive"] == 2
    assert left_out["text of a positive"] == 2  # a copy of the positive, and one of the far passage


def test_a_query_without_any_list_gets_no_negatives(tmp_path: Path) -> None:
    assert chosen({"dense": {}})[0] == []


def test_words_alone_are_compared() -> None:
    assert normalised("Ｔhe  Café, isn't it?") == normalised("the café isn t IT")
    assert normalised("?!") == "?!"
