"""Pairs of a query and a document that may still count, flat.

Shapes: B queries, N documents, P pairs, C pairs of one query.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pairs:
    """`query_P` and `row_P` with rough scores."""

    query_P: np.ndarray
    row_P: np.ndarray
    score_P: np.ndarray

    @classmethod
    def above(cls, rough_BN: np.ndarray, line_B: np.ndarray, first_row: int) -> "Pairs":
        """The pairs that are not below their query's line, by query; column 0 is row `first_row`. NaN is not below."""
        # As float32 the line must not rise.
        low_B = np.nextafter(line_B.astype(np.float32), np.float32(-np.inf))
        flat_P = np.flatnonzero(~(rough_BN < low_B[:, None]))
        query_P, column_P = np.divmod(flat_P, max(1, rough_BN.shape[1]))
        return cls(query_P.astype(np.int32), (column_P + first_row).astype(np.int32), rough_BN.ravel()[flat_P])

    def __len__(self) -> int:
        return len(self.query_P)

    @classmethod
    def together(cls, parts: "list[Pairs]") -> "Pairs":
        lists = ([part.query_P for part in parts], [part.row_P for part in parts], [part.score_P for part in parts])
        return cls(*(np.concatenate(arrays) for arrays in lists))

    def at_least(self, line_B: np.ndarray) -> "Pairs":
        kept = ~(self.score_P < line_B[self.query_P])
        return Pairs(self.query_P[kept], self.row_P[kept], self.score_P[kept])

    def padded_scores(self, queries: int) -> np.ndarray:
        """Rough scores (queries, C), -inf where a query has fewer. The pairs must be in the order of their queries."""
        count_B = np.bincount(self.query_P, minlength=queries)
        place_P = np.arange(len(self)) - np.repeat(np.cumsum(count_B) - count_B, count_B)
        score_BC = np.full((queries, int(count_B.max(initial=0))), -np.inf, np.float32)
        score_BC[self.query_P, place_P] = self.score_P
        return score_BC

    def rows_of(self, queries: int) -> list[np.ndarray]:
        """The rows of each query."""
        order_P = np.argsort(self.query_P.astype(np.int16), kind="stable")
        ends = np.cumsum(np.bincount(self.query_P, minlength=queries))
        return np.split(self.row_P[order_P], ends[:-1])
