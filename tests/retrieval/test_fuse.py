"""Fusion against plain twins, and on lists that are empty, constant, negative, or there for one system alone."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from largede.errors import DataError
from largede.retrieval.fuse import Fusion, fuse, reciprocal_rank
from largede.retrieval.runs import Ranking, Run, rank

FUSIONS: tuple[Fusion, ...] = ("scores", "ranks")

scored_lists = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2), st.floats(-50, 50, width=32).map(lambda x: round(x, 2)), max_size=12
)


def ranked(scores: dict[str, float]) -> Ranking:
    return rank(list(scores), list(scores.values()), len(scores))


def words(text: str) -> Ranking:
    ids = text.split()
    return ranked({id_: float(len(ids) - place) for place, id_ in enumerate(ids)})


DENSE: Run = {"q": words("a b c"), "only-dense": words("x")}
BM25: Run = {"q": words("c d a e"), "only-bm25": words("y z")}


def plain_reciprocal_rank(lists: Sequence[Ranking]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in lists:
        for place, document in enumerate(one.ids):
            total[document] = total.get(document, 0.0) + 1 / (60 + place + 1)
    return total


def plain_fuse(dense: Ranking, bm25: Ranking, weight: float, fusion: Fusion) -> dict[str, float]:
    """Document by document, in words."""
    fused = {}
    for document in {*dense.ids, *bm25.ids}:
        share = {}
        for name, one in (("dense", dense), ("bm25", bm25)):
            if document not in one.ids:
                share[name] = 0.0
            elif fusion == "ranks":
                share[name] = 1 / (61 + one.ids.index(document))
            else:
                scores = [float(score) for score in one.scores]
                low = min(scores) if name == "dense" else min(0.0, *scores)
                span = max(scores) - low
                share[name] = (scores[one.ids.index(document)] - low) / span if span > 0 else 1.0
        fused[document] = weight * share["dense"] + (1 - weight) * share["bm25"]
    return fused


def test_reciprocal_rank_follows_the_formula() -> None:
    run = reciprocal_rank([DENSE, BM25], 10)
    expected = {"a": 1 / 61 + 1 / 63, "b": 1 / 62, "c": 1 / 63 + 1 / 61, "d": 1 / 62, "e": 1 / 64}
    assert run["q"].scored() == pytest.approx(expected, rel=1e-6)
    # Equal scores by descending id, as trec_eval has it.
    assert run["q"].ids == ("c", "a", "d", "b", "e")
    assert run["only-dense"].ids == ("x",) and run["only-bm25"].ids == ("y", "z")


@given(st.lists(scored_lists, max_size=4), st.integers(1, 9), st.randoms())
def test_reciprocal_rank_equals_its_twin_in_any_order_of_the_lists(
    lists: list[dict[str, float]], depth: int, random: np.random.Generator
) -> None:
    runs: list[Run] = [{"q": ranked(scores)} for scores in lists]
    found = reciprocal_rank(runs, depth)
    plain = plain_reciprocal_rank([run["q"] for run in runs])
    assert found.keys() == ({"q"} if runs else set())
    if runs:
        assert len(found["q"]) == min(depth, len(plain))
        assert found["q"].scored() == pytest.approx({id_: plain[id_] for id_ in found["q"].ids}, rel=1e-6)
        assert list(found["q"].scores) == sorted(found["q"].scores, reverse=True)
        random.shuffle(runs)
        assert reciprocal_rank(runs, depth)["q"].ids == found["q"].ids


@given(scored_lists, scored_lists, st.integers(0, 20), st.sampled_from(FUSIONS))
def test_weighted_fusion_equals_its_twin(
    dense: dict[str, float], bm25: dict[str, float], twentieths: int, fusion: Fusion
) -> None:
    one, other, weight = ranked(dense), ranked(bm25), twentieths / 20
    found = fuse({"q": one}, {"q": other}, weight, 100, fusion)["q"]
    if weight in (0, 1):
        expected = one if weight else other
        assert found.ids == expected.ids and found.scores.tolist() == expected.scores.tolist()
        return
    plain = plain_fuse(one, other, weight, fusion)
    assert found.scored() == pytest.approx(plain, rel=1e-6, abs=1e-7)
    assert found.ids == ranked(found.scored()).ids


def test_equal_weights_on_ranks_are_reciprocal_rank_fusion() -> None:
    assert {q: r.ids for q, r in fuse(DENSE, BM25, 0.5, 10, "ranks").items()} == {
        q: r.ids for q, r in reciprocal_rank([DENSE, BM25], 10).items()
    }


def test_scores_are_scaled_by_query_so_that_their_size_does_not_matter() -> None:
    large = {q: Ranking(r.ids, r.scores * np.float32(1024) - np.float32(4096)) for q, r in DENSE.items()}
    assert fuse(large, BM25, 0.3, 10)["q"].scored() == fuse(DENSE, BM25, 0.3, 10)["q"].scored()
    # A BM25 score means something from zero on: it may grow by a factor, not by a sum.
    larger = {q: Ranking(r.ids, r.scores * np.float32(8)) for q, r in BM25.items()}
    assert fuse(DENSE, larger, 0.3, 10)["q"].scored() == fuse(DENSE, BM25, 0.3, 10)["q"].scored()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_hostile_lists(weight: float, fusion: Fusion) -> None:
    nothing = Ranking((), np.empty(0, dtype=np.float32))
    assert fuse({}, {}, weight, 10, fusion) == {}
    assert fuse({"q": nothing}, {"q": nothing}, weight, 10, fusion)["q"].ids == ()
    constant = {"q": ranked({"a": -3.0, "b": -3.0, "c": -3.0})}
    assert fuse(constant, constant, weight, 10, fusion)["q"].ids == ("c", "b", "a")
    alone = fuse({"q": ranked({"a": -1e30})}, {"q": nothing}, weight, 10, fusion)["q"]
    assert alone.ids == (() if weight == 0 else ("a",)) and np.isfinite(alone.scores).all()
    assert fuse({}, {"q": ranked({"a": 2.0})}, weight, 10, fusion)["q"].ids == (() if weight == 1 else ("a",))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_depth_cuts_and_every_document_of_either_list_may_come_in(fusion: Fusion) -> None:
    whole = fuse(DENSE, BM25, 0.4, 10, fusion)["q"]
    assert set(whole.ids) == set("abcde")
    assert fuse(DENSE, BM25, 0.4, 2, fusion)["q"].ids == whole.ids[:2]


@pytest.mark.parametrize("weight", [-0.01, 1.01, float("nan")])
def test_a_weight_outside_0_to_1_is_refused(weight: float) -> None:
    with pytest.raises(DataError, match="a fusion weight of"):
        fuse(DENSE, BM25, weight, 10)
