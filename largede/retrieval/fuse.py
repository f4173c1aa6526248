"""Two ranked lists into one: weighted reciprocal-rank fusion."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from largede.retrieval.runs import Ranking, Run, rank

DAMPING = 60
"""The constant of Cormack et al. (2009): the first places differ less than 1/rank would have it."""

_EMPTY = Ranking((), np.empty(0, dtype=np.float32))


@dataclass(frozen=True)
class AlignedLists:
    """The documents of two lists with what each list gives them: 1 / (60 + rank), or 0 where it lacks them."""

    ids: tuple[str, ...]
    dense_N: np.ndarray
    bm25_N: np.ndarray

    def fused(self, weight: float, depth: int) -> Ranking:
        """A document that gets nothing is left out: weight 1 is the dense list again, weight 0 the BM25 list."""
        score_N = weight * self.dense_N + (1 - weight) * self.bm25_N
        ranking = rank(self.ids, score_N, depth)
        return ranking.top(int(np.count_nonzero(ranking.scores)))


def align(dense: Ranking, bm25: Ranking) -> AlignedLists:
    place = {document: row for row, document in enumerate(dict.fromkeys(dense.ids + bm25.ids))}
    gained = np.zeros((2, len(place)))
    for share_N, ranking in zip(gained, (dense, bm25), strict=True):
        share_N[[place[document] for document in ranking.ids]] = 1 / (DAMPING + np.arange(1, len(ranking) + 1))
    return AlignedLists(tuple(place), gained[0], gained[1])


def fuse(dense: Run, bm25: Run, weight: float, depth: int) -> Run:
    """Score w / (60 + dense rank) + (1 - w) / (60 + BM25 rank), a missing rank counting nothing."""
    return {query: lists.fused(weight, depth) for query, lists in aligned_runs(dense, bm25)}


def aligned_runs(dense: Run, bm25: Run) -> Iterator[tuple[str, AlignedLists]]:
    """Query by query, for all queries of either run."""
    for query in dict.fromkeys([*dense, *bm25]):
        yield query, align(dense.get(query, _EMPTY), bm25.get(query, _EMPTY))
