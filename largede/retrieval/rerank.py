"""Re-ranking: the best of one list, put in the order of another score.

Published re-ranking cuts: what is below `depth` is not in the new list. Khattab and Zaharia (2020) re-rank BM25's best
1000 on MS MARCO, Thakur et al. (2021) its best 100 on BEIR.
"""

from collections.abc import Sequence

import numpy as np

from largede.errors import DataError, ModelError
from largede.retrieval.encode import Embeddings, read_shards
from largede.retrieval.runs import Run, rank
from largede.retrieval.search import score_pairs


def rerank(run: Run, depth: int, embeddings: Embeddings, query_ids: Sequence[str], query_QD: np.ndarray) -> Run:
    """The best `depth` documents of each query's list, by the inner product of its vector with theirs.

    The scores are those of the dense list to the last bit, so the result is the dense list restricted to the
    candidates. A query without a list stays without; a document with the query's own id is left out.

    Raises ModelError when embeddings and queries differ in width, DataError for a document that was not embedded.
    """
    if query_QD.shape != (len(query_ids), embeddings.dimension):
        raise ModelError(
            f"queries of width {query_QD.shape[-1]} on embeddings of width {embeddings.dimension}",
            expected="the model that encoded the corpus",
            mend="encode the corpus with this model",
        )
    candidates = candidates_of(run, depth, query_ids)
    scores = dense_scores(candidates, embeddings, dict(zip(query_ids, query_QD, strict=True)))
    return {query: rank(ids, scores[query], len(ids)) for query, ids in candidates.items()}


def candidates_of(run: Run, depth: int, query_ids: Sequence[str]) -> dict[str, list[str]]:
    """The documents to be scored, by query: what any scorer of pairs gets."""
    return {
        query: [document for document in run[query].ids[:depth] if document != query]
        for query in query_ids
        if query in run
    }


def dense_scores(
    candidates: dict[str, list[str]], embeddings: Embeddings, query_D: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Float32 scores of each query's candidates, in their order; one embedding shard in memory at a time.

    C candidates of all queries one after the other, U different documents among them.
    """
    if not candidates:
        return {}
    number = {document: u for u, document in enumerate(dict.fromkeys(d for ids in candidates.values() for d in ids))}
    number_C = np.fromiter((number[d] for ids in candidates.values() for d in ids), dtype=np.int64)
    ends = np.cumsum([len(ids) for ids in candidates.values()], dtype=np.int64)
    score_C = np.full(len(number_C), np.nan, dtype=np.float32)
    for ids, vector_ND in read_shards(embeddings):
        row_U = np.full(len(number), -1, dtype=np.int64)
        for row, document in enumerate(ids):
            if document in number:
                row_U[number[document]] = row
        row_C = row_U[number_C]
        here = np.flatnonzero(row_C >= 0)
        for query, places in zip(candidates, np.split(here, np.searchsorted(here, ends[:-1])), strict=True):
            if len(places):
                score_C[places] = score_pairs(vector_ND[row_C[places]], query_D[query])
    scores = dict(zip(candidates, np.split(score_C, ends[:-1]), strict=True))
    if np.isnan(score_C).any():
        _refuse_unknown(candidates, scores, embeddings)
    return scores


def _refuse_unknown(candidates: dict[str, list[str]], scores: dict[str, np.ndarray], embeddings: Embeddings) -> None:
    query = next(query for query in candidates if np.isnan(scores[query]).any())
    document = candidates[query][int(np.flatnonzero(np.isnan(scores[query]))[0])]
    raise DataError(
        f"document {document!r}, found for query {query!r}, is not among {embeddings.folder}",
        expected="a ranked list over the corpus that was encoded",
        mend="search and encode the same corpus",
    )
