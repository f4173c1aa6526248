"""Inner-product search over embedding shards, one shard in memory at a time.

exact.py        every document counts; the same lists however corpus and queries are split
approximate.py  HNSW, HNSW-SQ8, IVF-PQ: an index of the whole corpus in memory, built once into a folder
parts.py        several processes, each with the shards of its own
devices.py      CPU, one GPU, all GPUs of a machine
kernel.py       the score that counts
lists.py        ranked lists as arrays
compare.py      what the kinds of index cost and find
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from largede.errors import DataError, ModelError
from largede.retrieval.corpus import Corpus
from largede.retrieval.document_ids import DocumentIds
from largede.retrieval.encode import Embeddings, read_shards
from largede.retrieval.runs import Run
from largede.retrieval.search.exact import ExactSearch, ShardOfVectors
from largede.retrieval.search.kernel import score_pairs
from largede.retrieval.search_settings import SearchSettings

__all__ = ["check_fit", "check_settings", "score_pairs", "search", "search_vectors"]


def search(
    embeddings: Embeddings,
    query_ids: Sequence[str],
    query_QD: np.ndarray,
    depth: int,
    corpus: Corpus | None = None,
    settings: SearchSettings | None = None,
    index_folder: Path | None = None,
) -> Run:
    """The best `depth` documents of each query, a document with the query's own id left out (as BEIR does).

    An approximate index is taken from `index_folder` (empty: a folder inside the embeddings'), and built there first
    if need be. Raises ModelError when index and queries differ in width, DataError when `corpus` is not the one that
    was encoded or the index is damaged, MachineError when there are fewer GPUs than asked for.
    """
    settings = settings or SearchSettings()
    check_fit(embeddings, query_ids, query_QD, corpus)
    if settings.is_exact:
        names = corpus.ids if corpus else None
        return search_vectors(read_shards(embeddings), query_ids, query_QD, depth, settings, names)
    from largede.retrieval.search.approximate import search_index

    return search_index(embeddings, query_ids, query_QD, depth, settings, index_folder)


def search_vectors(
    shards: Iterable[tuple[Sequence[str], np.ndarray]],
    query_ids: Sequence[str],
    query_QD: np.ndarray,
    depth: int,
    settings: SearchSettings | None = None,
    names: Sequence[str] | None = None,
) -> Run:
    """Exact search over (ids, float32 vectors), which are asked for one at a time.

    `names`, if at hand, are all ids in the order of the shards; else they are gathered, in less memory and more time.
    """
    exact, gathered = ExactSearch(query_ids, query_QD, depth, settings or SearchSettings()), DocumentIds()
    first_row = 0
    for ids, vector_ND in shards:
        if names is None:
            gathered.append(ids)
        exact.add(ShardOfVectors(ids, vector_ND, first_row), names or gathered)
        first_row += len(ids)
    return exact.run(names or gathered)


def check_settings(settings: SearchSettings, rows: int, dimension: int | None = None) -> None:
    """Refuse what cannot be searched before anything is encoded: raises MachineError for GPUs that are not there, and
    DataError for an index that does not fit this many documents, or (where it is known) the width of the vectors."""
    from largede.retrieval.search.approximate import ivf_pq_shape
    from largede.retrieval.search.devices import gpus_of

    gpus_of(settings)
    if settings.kind == "ivf-pq":
        ivf_pq_shape(settings, rows, dimension or settings.ivf_pq.codes or 1)


def check_fit(
    embeddings: Embeddings, query_ids: Sequence[str], query_QD: np.ndarray, corpus: Corpus | None = None
) -> None:
    """Raises ModelError when index and queries differ in width, DataError when the corpus is another one."""
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
