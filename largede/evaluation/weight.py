"""The fusion weight, chosen on queries that are not reported."""

from dataclasses import dataclass

from largede.evaluation.metrics import mean, per_query
from largede.retrieval.corpus import Qrels
from largede.retrieval.fuse import aligned_runs
from largede.retrieval.runs import Run

GRID = tuple(round(0.05 * step, 2) for step in range(21))


@dataclass(frozen=True)
class FusionWeight:
    """The share of the dense list, where it was chosen, and nDCG@10 there for each weight of the grid."""

    weight: float
    chosen_on: str
    curve: tuple[tuple[float, float], ...] = ()


UNCHOSEN = FusionWeight(0.5, "no development split: half and half")


def choose_weight(dense: Run, bm25: Run, qrels: Qrels, chosen_on: str) -> FusionWeight:
    """The weight with the best mean nDCG@10; equal figures are decided towards 0.5, then towards BM25."""
    runs: dict[float, Run] = {weight: {} for weight in GRID}
    for query, lists in aligned_runs(dense, bm25):
        for weight in GRID:
            runs[weight][query] = lists.fused(weight, 10)
    curve = {weight: mean(per_query(run, qrels, ("nDCG@10",))["nDCG@10"]) for weight, run in runs.items()}
    best = max(curve, key=lambda weight: (round(curve[weight], 9), -abs(round(weight - 0.5, 2)), -weight))
    return FusionWeight(best, chosen_on, tuple(curve.items()))
