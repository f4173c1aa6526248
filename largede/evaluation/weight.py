"""The fusion weight, chosen on queries that are not reported."""

from collections.abc import Sequence
from dataclasses import dataclass

from largede.evaluation.measures.metrics import mean, per_query
from largede.retrieval.corpus import Qrels
from largede.retrieval.fuse import Fusion, aligned_runs
from largede.retrieval.runs import Run

GRID = tuple(round(0.05 * step, 2) for step in range(21))

_FINE = tuple(round(0.01 * step, 2) for step in range(-4, 5) if step)


@dataclass(frozen=True)
class FusionWeight:
    """The share of the dense list, where it was chosen, and the measure there for each weight that was tried."""

    weight: float
    chosen_on: str
    curve: tuple[tuple[float, float], ...] = ()


UNCHOSEN = FusionWeight(0.5, "no development split: half and half")


def choose_weight(
    dense: Run, bm25: Run, qrels: Qrels, chosen_on: str, fusion: Fusion = "scores", measure: str = "nDCG@10"
) -> FusionWeight:
    """The weight with the best mean of `measure`, in steps of 0.05 and then, around the best of these, of 0.01.

    Equal figures are decided towards 0.5, then towards BM25.
    """
    curve = _figures(dense, bm25, qrels, GRID, fusion, measure)
    around = _best(curve)
    fine = [round(around + step, 2) for step in _FINE if 0 <= round(around + step, 2) <= 1]
    curve |= _figures(dense, bm25, qrels, fine, fusion, measure)
    return FusionWeight(_best(curve), chosen_on, tuple(sorted(curve.items())))


def _best(curve: dict[float, float]) -> float:
    return max(curve, key=lambda weight: (round(curve[weight], 9), -abs(round(weight - 0.5, 2)), -weight))


def _figures(
    dense: Run, bm25: Run, qrels: Qrels, weights: Sequence[float], fusion: Fusion, measure: str
) -> dict[float, float]:
    cut = measure.rpartition("@")[2]
    depth = int(cut) if cut.isdecimal() else max(map(len, [*dense.values(), *bm25.values()]), default=1)
    runs: dict[float, Run] = {weight: {} for weight in weights}
    for query, lists in aligned_runs(dense, bm25, fusion):
        for weight in weights:
            runs[weight][query] = lists.fused(weight, depth)
    return {weight: mean(per_query(run, qrels, (measure,))[measure]) for weight, run in runs.items()}
