"""Approximate indexes of a whole corpus: built once from the embedding shards, searched in memory.

They collect candidates; unless told otherwise, the kernel scores them again from the stored vectors, which are read
shard by shard, so scores and order are those of exact search wherever the right documents were collected.

The same machine, shards, settings and thread count build the same index: k-means starts from a seed and a seeded
sample, and FAISS's HNSW, whose threads race for links, is built by one thread unless `build_threads` says otherwise.

Shapes: Q queries, N documents of a shard, C candidates, D dimensions.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from largede.errors import DataError
from largede.retrieval.document_ids import DocumentIds
from largede.retrieval.encode import Embeddings, read_shards
from largede.retrieval.runs import Run
from largede.retrieval.search.devices import threads_here
from largede.retrieval.search.exact import QUERIES_AT_ONCE, run_of
from largede.retrieval.search.index_file import OpenIndex, default_folder, read_index, write_index
from largede.retrieval.search.kernel import score_rows
from largede.retrieval.search.lists import NONE, TopLists
from largede.retrieval.search_settings import SearchSettings

# A byte of a product quantiser tells 256 centroids apart, and needs at least as many vectors to learn them from.
_CENTROIDS = 256
# k-means below this many vectors for each centroid is poor (FAISS warns).
_VECTORS_PER_LIST = 39
# Vectors to learn from, for each inverted list; for the ranges of an 8-bit quantiser, all in all.
_SAMPLE_PER_LIST = 64
_SAMPLE_FOR_RANGES = 100_000


def search_index(
    embeddings: Embeddings,
    query_ids: Sequence[str],
    query_QD: np.ndarray,
    depth: int,
    settings: SearchSettings,
    folder: Path | None = None,
) -> Run:
    """Lists from an approximate index, which is built first if there is none."""
    lists, ids = search_lists(embeddings, query_QD, depth + 1, settings, folder)
    return run_of(lists, query_ids, ids, depth)


def search_lists(
    embeddings: Embeddings, query_QD: np.ndarray, depth: int, settings: SearchSettings, folder: Path | None = None
) -> tuple[TopLists, DocumentIds]:
    opened = open_index(embeddings, settings, folder)
    prepare(opened.index, settings)
    count = min(candidates_for(settings, depth), embeddings.rows)
    score_QC, row_QC = collect(opened.index, query_QD, count)
    lists, ids = TopLists.empty(len(query_QD), depth), DocumentIds()
    if settings.rescore:
        score_QC = np.full_like(score_QC, -np.inf)
    for names, vector_ND in read_shards(embeddings) if settings.rescore else _names(embeddings):
        first = len(ids)
        ids.append(names)
        if vector_ND is not None:
            _score_again(score_QC, row_QC, query_QD, vector_ND, first)
    lists.add(np.where(row_QC == NONE, np.float32(-np.inf), score_QC), row_QC, ids)
    return lists, ids


def open_index(embeddings: Embeddings, settings: SearchSettings, folder: Path | None = None) -> OpenIndex:
    """The index in `folder`, built there now if there is none. Raises DataError when the one there does not fit."""
    folder = folder or default_folder(embeddings, settings)
    if not folder.is_dir() or not any(folder.iterdir()):
        write_index(folder, embeddings, settings, lambda: build(embeddings, settings))
    return read_index(folder, embeddings, settings)


def build(embeddings: Embeddings, settings: SearchSettings) -> tuple[Any, float]:
    """An index of all vectors, and the seconds that took."""
    begin = time.perf_counter()
    index = _empty_index(embeddings, settings)
    if not index.is_trained:
        index.train(_sample(embeddings, _sample_size(embeddings.rows, settings), settings.seed))
    with _threads(settings.build_threads if settings.kind.startswith("hnsw") else threads_here()):
        for _, vector_ND in read_shards(embeddings):
            index.add(np.ascontiguousarray(vector_ND, dtype=np.float32))
    return index, time.perf_counter() - begin


def prepare(index: Any, settings: SearchSettings) -> None:
    """Set what belongs to searching, not to the index."""
    if settings.kind.startswith("hnsw"):
        index.hnsw.efSearch = settings.hnsw.search
    if settings.kind == "ivf-pq":
        index.nprobe = settings.ivf_pq.probes or max(8, index.nlist // 16)


def candidates_for(settings: SearchSettings, depth: int) -> int:
    """Coarse scores need more candidates: HNSW scores exactly, 8 bits almost, product quantisation roughly."""
    per_hit = {"hnsw": 1.0, "hnsw-sq8": 1.25, "ivf-pq": 4.0}
    return max(depth, settings.candidates or math.ceil(per_hit.get(settings.kind, 1.0) * depth))


def collect(index: Any, query_QD: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rows (Q, count) of the index's own; NONE where it found fewer."""
    score_QC = np.empty((len(query_QD), count), np.float32)
    row_QC = np.empty((len(query_QD), count), np.int32)
    for first in range(0, len(query_QD), QUERIES_AT_ONCE):
        batch = slice(first, first + QUERIES_AT_ONCE)
        score_QC[batch], row_QC[batch] = index.search(np.ascontiguousarray(query_QD[batch], dtype=np.float32), count)
    return score_QC, row_QC


def default_lists(rows: int) -> int:
    """4 sqrt(N) inverted lists, but no more than k-means has vectors for."""
    return max(1, min(round(4 * math.sqrt(rows)), rows // _VECTORS_PER_LIST))


def default_codes(dimension: int) -> int:
    """Bytes of a document: the largest divisor of the width that is at most a quarter of it."""
    return max(codes for codes in range(1, max(1, dimension // 4) + 1) if dimension % codes == 0)


def _empty_index(embeddings: Embeddings, settings: SearchSettings) -> Any:
    import faiss

    dimension, product = embeddings.dimension, faiss.METRIC_INNER_PRODUCT
    if settings.kind == "flat":
        return faiss.IndexFlatIP(dimension)
    if settings.is_exact:
        kind = faiss.ScalarQuantizer.QT_fp16 if settings.kind == "flat-fp16" else faiss.ScalarQuantizer.QT_bf16
        return faiss.IndexScalarQuantizer(dimension, kind, product)
    if settings.kind == "ivf-pq":
        return _empty_ivf_pq(embeddings, settings)
    index: Any
    if settings.kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, settings.hnsw.links, product)
    else:
        bits: Any = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexHNSWSQ(dimension, bits, settings.hnsw.links, product)
    index.hnsw.efConstruction = settings.hnsw.construction
    return index


def ivf_pq_shape(settings: SearchSettings, rows: int, dimension: int) -> tuple[int, int]:
    """Inverted lists, and bytes of a document. Raises DataError for numbers that do not fit the corpus or the width."""
    lists = settings.ivf_pq.lists or default_lists(rows)
    codes = settings.ivf_pq.codes or default_codes(dimension)
    if rows < max(_CENTROIDS, lists):
        # Fewer lists are chosen by default; a number that was asked for is not quietly another.
        raise DataError(
            f"an index of {lists:,} lists and {_CENTROIDS} centroids for {rows:,} documents",
            expected="as many documents as lists, and 256 at least",
            mend="choose fewer --ivf-lists; on few documents --index flat is faster and exact",
        )
    if dimension % codes:
        raise DataError(
            f"{codes} bytes for a document of width {dimension}",
            expected="a divisor of the width",
            mend="change --pq-codes",
        )
    return lists, codes


def _empty_ivf_pq(embeddings: Embeddings, settings: SearchSettings) -> Any:
    import faiss

    dimension = embeddings.dimension
    lists, codes = ivf_pq_shape(settings, embeddings.rows, dimension)
    index: Any = faiss.index_factory(dimension, f"IVF{lists},PQ{codes}x8", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = index.pq.cp.seed = settings.seed + 1
    # Minutes of work for a kind of search that is not used here.
    index.do_polysemous_training = False
    # On a corpus of some thousands FAISS would warn, once for each byte of the codes.
    index.pq.cp.min_points_per_centroid = 1
    return index


def _sample_size(rows: int, settings: SearchSettings) -> int:
    if settings.kind != "ivf-pq":
        return min(rows, _SAMPLE_FOR_RANGES)
    lists = settings.ivf_pq.lists or default_lists(rows)
    return min(rows, max(_SAMPLE_PER_LIST * lists, 64 * _CENTROIDS))


def _sample(embeddings: Embeddings, count: int, seed: int) -> np.ndarray:
    """`count` of all vectors, in their order; one shard is in memory beside them."""
    chosen = np.sort(np.random.default_rng(seed).choice(embeddings.rows, count, replace=False))
    sample = np.empty((count, embeddings.dimension), np.float32)
    first = 0
    for names, vector_ND in read_shards(embeddings):
        here = slice(*np.searchsorted(chosen, [first, first + len(names)]).tolist())
        sample[here] = vector_ND[chosen[here] - first]
        first += len(names)
    return sample


def _score_again(
    score_QC: np.ndarray, row_QC: np.ndarray, query_QD: np.ndarray, vector_ND: np.ndarray, first: int
) -> None:
    """The kernel's scores for the candidates that lie in one shard."""
    here_QC = (row_QC >= first) & (row_QC < first + len(vector_ND))
    queries = np.flatnonzero(here_QC.any(axis=1))
    rows = [row_QC[query][here_QC[query]] - first for query in queries]
    for query, score_C in zip(queries, score_rows(vector_ND, rows, query_QD[queries], threads_here()), strict=True):
        score_QC[query, here_QC[query]] = score_C


def _names(embeddings: Embeddings) -> Iterator[tuple[list[str], None]]:
    return ((names, None) for names, _ in read_shards(embeddings))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
