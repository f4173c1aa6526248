"""Weighted reciprocal-rank fusion against its formula."""

import pytest

from largede.evaluation.weight import choose_weight
from largede.retrieval.fuse import fuse
from largede.retrieval.runs import Ranking, Run, rank


def ranked(words: str) -> Ranking:
    ids = words.split()
    return rank(ids, [float(-place) for place in range(len(ids))], len(ids))


DENSE: Run = {"q": ranked("a b c"), "only-dense": ranked("x")}
BM25: Run = {"q": ranked("c d a e"), "only-bm25": ranked("y z")}


def test_follows_the_formula() -> None:
    run = fuse(DENSE, BM25, 0.3, 10)
    expected = {"a": 0.3 / 61 + 0.7 / 63, "b": 0.3 / 62, "c": 0.3 / 63 + 0.7 / 61, "d": 0.7 / 62, "e": 0.7 / 64}
    assert run["q"].scored() == pytest.approx(expected, rel=1e-6)
    assert run["q"].ids == ("c", "a", "d", "e", "b")
    assert run["only-dense"].ids == ("x",)
    assert run["only-bm25"].ids == ("y", "z")


def test_the_ends_are_the_two_lists() -> None:
    assert {query: r.ids for query, r in fuse(DENSE, BM25, 1.0, 10).items() if len(r)} == {
        query: r.ids for query, r in DENSE.items()
    }
    assert {query: r.ids for query, r in fuse(DENSE, BM25, 0.0, 10).items() if len(r)} == {
        query: r.ids for query, r in BM25.items()
    }


def test_the_weight_follows_the_better_list_and_ties_go_to_the_middle() -> None:
    better, worse = {"q": ranked("good bad")}, {"q": ranked("bad good")}
    qrels = {"q": {"good": 1}}
    dense_wins = choose_weight(better, worse, qrels, "here")
    # Equal ranks sort by id, so "good" leads at one half too: the tie goes there.
    assert dense_wins.weight == 0.5
    assert dict(dense_wins.curve)[0.0] < 1 == dict(dense_wins.curve)[1.0]
    assert choose_weight(worse, better, {"q": {"good": 1}}, "here").weight == 0.5
    assert choose_weight({"q": ranked("aaa bad")}, {"q": ranked("bad aaa")}, {"q": {"aaa": 1}}, "here").weight == 0.55
    assert choose_weight(better, worse, {"q": {"absent": 1}}, "here").weight == 0.5
