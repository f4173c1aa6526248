"""The fusion weight follows the better list, is found to a hundredth, and decides ties as it says."""

import numpy as np
import pytest

from largede.evaluation.measures.metrics import mean, per_query
from largede.evaluation.weight import GRID, UNCHOSEN, choose_weight
from largede.retrieval.fuse import Fusion, fuse
from largede.retrieval.runs import Run, rank

FUSIONS: tuple[Fusion, ...] = ("scores", "ranks")


def made_runs(seed: int, *, dense_noise: float, bm25_noise: float) -> tuple[Run, Run, dict[str, dict[str, int]]]:
    """Two lists of 15 queries whose scores are a grade and noise."""
    rng = np.random.default_rng(seed)
    dense, bm25, qrels = {}, {}, {}
    for number in range(15):
        ids = [f"d{i:02d}" for i in range(30)]
        grade_N = (np.arange(30) < 3).astype(float)
        dense[f"q{number}"] = rank(ids, grade_N + dense_noise * rng.standard_normal(30), 20)
        bm25[f"q{number}"] = rank(ids, 20 * (grade_N + bm25_noise * rng.random(30)), 20)
        qrels[f"q{number}"] = {f"d{i:02d}": 1 for i in range(3)}
    return dense, bm25, qrels


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("measure", ["nDCG@10", "Recall@5"])
def test_it_is_the_best_of_all_weights_that_were_tried(fusion: Fusion, measure: str) -> None:
    dense, bm25, qrels = made_runs(0, dense_noise=0.6, bm25_noise=2.0)
    chosen = choose_weight(dense, bm25, qrels, "here", fusion, measure)
    curve = dict(chosen.curve)
    assert set(GRID) < set(curve) and list(curve) == sorted(curve)
    assert all(round(100 * weight) == pytest.approx(100 * weight) for weight in curve)
    for weight, figure in curve.items():
        run = fuse(dense, bm25, weight, 1000, fusion)
        assert figure == mean(per_query(run, qrels, (measure,))[measure])
    assert curve[chosen.weight] == max(curve.values()) > max(curve[0.0], curve[1.0])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_it_follows_the_better_list(fusion: Fusion) -> None:
    dense, bm25, qrels = made_runs(1, dense_noise=0.3, bm25_noise=9.0)
    assert choose_weight(dense, bm25, qrels, "here", fusion).weight > 0.6
    dense, bm25, qrels = made_runs(1, dense_noise=9.0, bm25_noise=1.2)
    assert choose_weight(dense, bm25, qrels, "here", fusion).weight < 0.4


@pytest.mark.parametrize("fusion", FUSIONS)
def test_ties_go_to_the_middle_then_to_bm25(fusion: Fusion) -> None:
    two = rank(["good", "bad"], [2.0, 1.0], 2)
    assert choose_weight({"q": two}, {"q": two}, {"q": {"absent": 1}}, "here", fusion).weight == 0.5
    other = rank(["good", "bad"], [1.0, 2.0], 2)
    # At one half both get the same on ranks, and "good" leads by its id.
    assert choose_weight({"q": two}, {"q": other}, {"q": {"good": 1}}, "here", "ranks").weight == 0.5
    # "aaa" leads only where the dense list has more than half.
    dense, bm25 = {"q": rank(["aaa", "bad"], [2.0, 1.0], 2)}, {"q": rank(["aaa", "bad"], [1.0, 2.0], 2)}
    assert choose_weight(dense, bm25, {"q": {"aaa": 1}}, "here", "ranks").weight == 0.51
    # "bad" leads only at the ends' other side: 0.49 and 0.48 both find it, and 0.49 is nearer to the middle.
    assert choose_weight(dense, bm25, {"q": {"bad": 1}}, "here", "ranks").weight == 0.5


def test_without_a_development_split_it_is_half_and_half_and_says_so() -> None:
    assert UNCHOSEN.weight == 0.5 and "half and half" in UNCHOSEN.chosen_on and UNCHOSEN.curve == ()
