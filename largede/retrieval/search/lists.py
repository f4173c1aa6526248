"""Ranked lists of many queries as arrays of row numbers, and the documents' names in little memory.

Eight bytes hold a document of a list: 500,000 lists of 1,000 take 4 GB. Names are looked up where scores tie, and when
a list is read.

Shapes: Q queries, K documents of a list, C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from largede.retrieval.runs import Ranking, Run, settle_ties

NONE = -1
"""The row number where a list has no document."""


class FoundRanking(Ranking):
    """A ranking that holds row numbers; `ids` are looked up each time they are asked for."""

    def __init__(self, names: Sequence[str], row_K: np.ndarray, score_K: np.ndarray) -> None:
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_row_K", row_K)
        object.__setattr__(self, "scores", score_K)

    @property
    def ids(self) -> tuple[str, ...]:
        names: Sequence[str] = self.__dict__["_names"]
        return tuple([names[row] for row in self.__dict__["_row_K"].tolist()])

    def __len__(self) -> int:
        return len(self.scores)

    def top(self, depth: int) -> Ranking:
        return FoundRanking(self.__dict__["_names"], self.__dict__["_row_K"][:depth], self.scores[:depth])


@dataclass
class TopLists:
    """The best K so far of each query: `score_QK` float32, descending, and `row_QK` int32; -inf and NONE fill up."""

    score_QK: np.ndarray
    row_QK: np.ndarray

    @classmethod
    def empty(cls, queries: int, depth: int) -> "TopLists":
        return cls(np.full((queries, depth), -np.inf, np.float32), np.full((queries, depth), NONE, np.int32))

    @property
    def depth(self) -> int:
        return self.score_QK.shape[1]

    def part(self, queries: slice) -> "TopLists":
        """The lists of some queries; what is added there is added here."""
        return TopLists(self.score_QK[queries], self.row_QK[queries])

    def add(self, score_QC: np.ndarray, row_QC: np.ndarray, ids: Sequence[str]) -> None:
        """Put candidates among the lists. A row that is there already must not come again; -inf counts as nothing."""
        changed_q = np.flatnonzero((score_QC > -np.inf).any(axis=1))
        if not len(changed_q):
            return
        scores = np.concatenate([self.score_QK[changed_q], score_QC[changed_q]], axis=1)
        rows = np.concatenate([self.row_QK[changed_q], row_QC[changed_q]], axis=1)
        self.score_QK[changed_q], self.row_QK[changed_q] = in_order(scores, rows, self.depth, ids)

    def run(self, query_ids: Sequence[str], ids: Sequence[str], depth: int) -> Run:
        """The lists by query, cut to `depth` documents."""
        found_Q = (self.row_QK != NONE).sum(axis=1)
        return {
            query: FoundRanking(ids, row_K[:found], score_K[:found]).top(depth)
            for query, row_K, score_K, found in zip(query_ids, self.row_QK, self.score_QK, found_Q, strict=True)
        }

    def without(self, own_row_Q: np.ndarray) -> "TopLists":
        """The lists without row `own_row_Q[q]` in list q (NONE: nothing to leave out)."""
        own_QK = (self.row_QK == own_row_Q[:, None]) & (own_row_Q != NONE)[:, None]
        # A stable sort that moves the one document that goes to the end keeps the order of the others.
        order_QK = np.argsort(own_QK, axis=1, kind="stable")
        scores, rows = np.where(own_QK, -np.inf, self.score_QK), np.where(own_QK, NONE, self.row_QK)
        return TopLists(
            np.take_along_axis(scores, order_QK, axis=1).astype(np.float32, copy=False),
            np.take_along_axis(rows, order_QK, axis=1),
        )


def in_order(score_QC: np.ndarray, row_QC: np.ndarray, depth: int, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The best `depth` of each row of candidates, in trec_eval's order: equal scores by descending document id."""
    order_QC = np.argsort(-score_QC, axis=1, kind="stable")
    score_QC = np.take_along_axis(score_QC, order_QC, axis=1)
    row_QC = np.take_along_axis(row_QC, order_QC, axis=1)
    # Only ties that reach into the best `depth` matter, and those of two empty places do not.
    tied = (score_QC[:, 1:] == score_QC[:, :-1])[:, :depth] & (score_QC[:, :-1] > -np.inf)[:, :depth]
    for query in np.flatnonzero(tied.any(axis=1)).tolist():
        found = int((score_QC[query] > -np.inf).sum())
        settle_ties(score_QC[query, :found], row_QC[query, :found], ids)
    return score_QC[:, :depth], row_QC[:, :depth]
