"""Exact inner-product search over embedding shards, one shard in memory at a time.

FAISS finds candidates fast, but its last bits depend on how many queries and documents it sees at once. So every
candidate is scored again by one fixed kernel, and a list is accepted only where FAISS's rounding cannot have hidden a
better document; elsewhere the whole shard is scored. The result is the same however the corpus is split and the
queries are batched.

Shapes: Q queries, N documents of a shard, C candidates, D dimensions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from largede.errors import DataError, ModelError
from largede.retrieval.corpus import Corpus
from largede.retrieval.encode import Embeddings, read_shards
from largede.retrieval.runs import Ranking, Run, rank

_QUERIES_AT_ONCE = 256
_ROWS_AT_ONCE = 4096
# The most that FAISS can return for one query on a GPU.
_GPU_CANDIDATES = 2048


def search(
    embeddings: Embeddings, query_ids: Sequence[str], query_QD: np.ndarray, depth: int, corpus: Corpus | None = None
) -> Run:
    """The best `depth` documents of each query, a document with the query's own id left out (as BEIR does).

    Raises ModelError when index and queries differ in width, DataError when `corpus` is not the one that was encoded.
    """
    if query_QD.shape != (len(query_ids), embeddings.dimension):
        raise ModelError(
            f"queries of width {query_QD.shape[-1]} on an index of width {embeddings.dimension}",
            expected="the model that encoded the corpus",
            mend="encode the corpus with this model",
        )
    if corpus is not None and corpus.fingerprint != embeddings.corpus:
        raise DataError(
            f"{corpus.path} is not the corpus that {embeddings.folder} was made from",
            expected="the corpus unchanged since it was encoded",
            mend="encode it again",
        )
    best: Run = {}
    for ids, vector_ND in read_shards(embeddings):
        for query, found in _search_shard(ids, vector_ND, query_ids, query_QD, depth):
            best[query] = _merged(best[query], found, depth) if query in best else found
    return best


def score_pairs(vector_CD: np.ndarray, query_D: np.ndarray) -> np.ndarray:
    """Inner products (C,) as float32, each a function of its own two vectors alone.

    Products of float32 are exact in float64, and numpy adds up a row in an order that depends on D only.
    """
    score_C = np.empty(len(vector_CD), dtype=np.float32)
    query64_D = query_D.astype(np.float64)
    for first in range(0, len(vector_CD), _ROWS_AT_ONCE):
        block = vector_CD[first : first + _ROWS_AT_ONCE].astype(np.float64, order="C")
        score_C[first : first + len(block)] = np.multiply(block, query64_D, out=block).sum(axis=1)
    return score_C


def _search_shard(
    ids: list[str], vector_ND: np.ndarray, query_ids: Sequence[str], query_QD: np.ndarray, depth: int
) -> list[tuple[str, Ranking]]:
    # One more, because a query's own document may have to go.
    wanted = depth + 1
    fetched = wanted + max(32, wanted // 4)
    index = _faiss_index(vector_ND) if fetched < len(ids) else None
    longest = float(np.sqrt(np.square(vector_ND.astype(np.float64)).sum(axis=1)).max())
    found = []
    for first in range(0, len(query_ids), _QUERIES_AT_ONCE):
        batch_QD = np.ascontiguousarray(query_QD[first : first + _QUERIES_AT_ONCE], dtype=np.float32)
        candidates = _candidates(index, batch_QD, fetched)
        for offset, query_D in enumerate(batch_QD):
            scores, rows = candidates[offset] if candidates else (None, None)
            ranking = _ranked(ids, vector_ND, query_D, wanted, longest, scores, rows)
            query = query_ids[first + offset]
            found.append((query, _without(ranking, query).top(depth)))
    return found


def _faiss_index(vector_ND: np.ndarray) -> Any:
    import faiss

    index: Any = faiss.IndexFlatIP(vector_ND.shape[1])
    if hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(np.ascontiguousarray(vector_ND))
    return index


def _candidates(index: Any, batch_QD: np.ndarray, fetched: int) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """FAISS's scores and rows for each query, or None when the whole shard is to be scored anyway."""
    if index is None:
        return None
    score_QC, row_QC = index.search(batch_QD, min(fetched, _GPU_CANDIDATES) if _is_on_gpu(index) else fetched)
    return list(zip(score_QC, row_QC, strict=True))


def _is_on_gpu(index: Any) -> bool:
    return "Gpu" in type(index).__name__ or "Replicas" in type(index).__name__


def _ranked(
    ids: list[str],
    vector_ND: np.ndarray,
    query_D: np.ndarray,
    wanted: int,
    longest: float,
    faiss_score_C: np.ndarray | None,
    row_C: np.ndarray | None,
) -> Ranking:
    """The exact best of this shard, from FAISS's candidates where they are surely enough."""
    if faiss_score_C is not None and row_C is not None:
        ranking = rank([ids[row] for row in row_C], score_pairs(vector_ND[row_C], query_D), wanted)
        # Whatever was not fetched scores at most this: float32 sums of D terms err by D rounding units of the norms.
        slack = len(query_D) * 2.0**-24 * float(np.linalg.norm(query_D)) * longest * 1.01
        if len(ranking) == wanted and ranking.scores[-1] > np.float32(float(faiss_score_C[-1]) + slack):
            return ranking
    return rank(ids, score_pairs(vector_ND, query_D), wanted)


def _without(ranking: Ranking, id_: str) -> Ranking:
    if id_ not in ranking.ids:
        return ranking
    kept = [place for place, document in enumerate(ranking.ids) if document != id_]
    return Ranking(tuple(ranking.ids[place] for place in kept), ranking.scores[kept])


def _merged(one: Ranking, other: Ranking, depth: int) -> Ranking:
    return rank(one.ids + other.ids, np.concatenate([one.scores, other.scores]), depth)
