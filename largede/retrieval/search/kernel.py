"""The score of one query and one document: a function of their two vectors alone.

Products of float32 are exact in float64, and einsum's loop adds up a row in an order that depends on D only. So the
float32 that comes out is the same wherever the row stands, whatever stands beside it, and, but for one in millions, on
any processor. FAISS and BLAS give no such promise: their last bits depend on how many rows and queries they see.

Shapes: N documents of a shard, C of them chosen, B queries, D dimensions.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_ROWS_AT_ONCE = 256


def score_pairs(vector_CD: np.ndarray, query_D: np.ndarray) -> np.ndarray:
    """Inner products (C,) as float32."""
    return _score_rows(vector_CD, np.arange(len(vector_CD)), query_D)


def score_rows(
    vector_ND: np.ndarray, rows_B: Sequence[np.ndarray], query_BD: Sequence[np.ndarray] | np.ndarray, threads: int = 1
) -> list[np.ndarray]:
    """For each query its inner products with the rows chosen for it, as `score_pairs` gives them."""
    if threads <= 1 or len(rows_B) <= 1:
        return [_score_rows(vector_ND, row_C, query_D) for row_C, query_D in zip(rows_B, query_BD, strict=True)]
    # numpy lets go of the interpreter lock in every loop of the kernel.
    edges = np.linspace(0, len(rows_B), min(threads, len(rows_B)) + 1).astype(int).tolist()
    slices = [slice(first, last) for first, last in zip(edges[:-1], edges[1:], strict=True)]

    def part(some: slice) -> list[np.ndarray]:
        return score_rows(vector_ND, rows_B[some], query_BD[some])

    with ThreadPoolExecutor(len(slices)) as pool:
        return [score_C for scores in pool.map(part, slices) for score_C in scores]


def _score_rows(vector_ND: np.ndarray, row_C: np.ndarray, query_D: np.ndarray) -> np.ndarray:
    score_C = np.empty(len(row_C), dtype=np.float32)
    query64_D = np.ascontiguousarray(query_D, dtype=np.float64)
    size = min(_ROWS_AT_ONCE, len(row_C))
    gathered = np.empty((size, len(query64_D)), dtype=vector_ND.dtype)
    block = np.empty((size, len(query64_D)))
    for first in range(0, len(row_C), _ROWS_AT_ONCE):
        rows = row_C[first : first + _ROWS_AT_ONCE]
        # Any mode but "raise" spares a second copy.
        np.take(vector_ND, rows, axis=0, out=gathered[: len(rows)], mode="clip")
        block[: len(rows)] = gathered[: len(rows)]
        score_C[first : first + len(rows)] = np.einsum("cd,d->c", block[: len(rows)], query64_D)
    return score_C
