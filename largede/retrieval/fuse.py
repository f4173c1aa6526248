"""Ranked lists into one list: reciprocal-rank fusion of any number, and two lists by a weight.

    reciprocal_rank   sum of 1 / (60 + rank); nothing to learn (Cormack et al. 2009)
    fuse, scores      w * dense + (1 - w) * BM25, each list's scores of one query scaled to 0 .. 1
    fuse, ranks       w / (60 + dense rank) + (1 - w) / (60 + BM25 rank)

A document that a list lacks gets nothing from it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from largede.errors import DataError
from largede.retrieval.runs import Ranking, Run, rank

DAMPING = 60
"""The constant of Cormack et al. (2009): the first places differ less than 1/rank would have it."""

Fusion = Literal["scores", "ranks"]

_EMPTY = Ranking((), np.empty(0, dtype=np.float32))


@dataclass(frozen=True)
class AlignedLists:
    """Two lists of one query, and what each gives to every document of either (`dense_N`, `bm25_N`)."""

    dense: Ranking
    bm25: Ranking
    ids: tuple[str, ...]
    dense_N: np.ndarray
    bm25_N: np.ndarray

    def fused(self, weight: float, depth: int) -> Ranking:
        """Weight 1 is the dense list again, weight 0 the BM25 list, scores included."""
        if weight in (0, 1):
            return (self.dense if weight else self.bm25).top(depth)
        return rank(self.ids, weight * self.dense_N + (1 - weight) * self.bm25_N, depth)


def fuse(dense: Run, bm25: Run, weight: float, depth: int, fusion: Fusion = "scores") -> Run:
    """The best `depth` documents of every query of either run. Raises DataError for a weight outside 0 to 1."""
    if not 0 <= weight <= 1:
        raise DataError(f"a fusion weight of {weight}", expected="0 to 1", mend="give the share of the dense list")
    return {query: lists.fused(weight, depth) for query, lists in aligned_runs(dense, bm25, fusion)}


def aligned_runs(dense: Run, bm25: Run, fusion: Fusion = "scores") -> Iterator[tuple[str, AlignedLists]]:
    """Query by query, for all queries of either run."""
    for query in dict.fromkeys([*dense, *bm25]):
        yield query, align(dense.get(query, _EMPTY), bm25.get(query, _EMPTY), fusion)


def align(dense: Ranking, bm25: Ranking, fusion: Fusion = "scores") -> AlignedLists:
    shares = [rank_shares(dense), rank_shares(bm25)]
    if fusion == "scores":
        shares = [dense_shares(dense), bm25_shares(bm25)]
    ids, share_LN = _spread([dense, bm25], shares)
    return AlignedLists(dense, bm25, ids, share_LN[0], share_LN[1])


def reciprocal_rank(runs: Sequence[Run], depth: int) -> Run:
    """Fuse by 1 / (60 + rank) alone. The order of the runs does not matter."""
    fused = {}
    for query in dict.fromkeys(query for run in runs for query in run):
        lists = [run.get(query, _EMPTY) for run in runs]
        ids, share_LN = _spread(lists, [rank_shares(ranking) for ranking in lists])
        # Added up from the smallest on: the last bits depend on the order.
        fused[query] = rank(ids, np.sort(share_LN, axis=0).sum(axis=0), depth)
    return fused


def rank_shares(ranking: Ranking) -> np.ndarray:
    return 1 / (DAMPING + np.arange(1, len(ranking) + 1))


def dense_shares(ranking: Ranking) -> np.ndarray:
    """From 0, the list's last, to 1, its first: what is far from a query has no score of its own to start from."""
    return _scaled(ranking, lowest=None)


def bm25_shares(ranking: Ranking) -> np.ndarray:
    """From 0, a document without any word of the query, to 1, the list's first."""
    return _scaled(ranking, lowest=0.0)


def _scaled(ranking: Ranking, lowest: float | None) -> np.ndarray:
    """(score - lowest) / (first - lowest), `lowest` never above the last; a list of equal scores is all ones."""
    score_N = ranking.scores.astype(np.float64)
    if not len(score_N):
        return score_N
    low = score_N[-1] if lowest is None else min(lowest, score_N[-1])
    span = score_N[0] - low
    return (score_N - low) / span if span > 0 else np.ones(len(score_N))


def _spread(lists: Sequence[Ranking], shares: Sequence[np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
    """All documents of L lists, and what each list gives to each: (L, N), 0 where it lacks the document."""
    place = {document: row for row, document in enumerate(dict.fromkeys(id_ for one in lists for id_ in one.ids))}
    share_LN = np.zeros((len(lists), len(place)))
    for row_N, ranking, share in zip(share_LN, lists, shares, strict=True):
        row_N[[place[document] for document in ranking.ids]] = share
    return tuple(place), share_LN
