"""The ranked lists of one window of queries, as files: each made once, and made again when what it depends on changes.

    dense-00000.trec, bm25-00000.trec     TREC runs
    scores-00000.trec                     dense scores of what was judged or found by BM25 and is not in the dense list

Q queries, N documents of a shard of embeddings, D dimensions.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from largede.errors import DataError
from largede.files import sha256_file
from largede.retrieval.bm25 import Bm25Settings, bm25_search
from largede.retrieval.encode import Embeddings, read_shards
from largede.retrieval.encoder import Model, embed_checked
from largede.retrieval.mine.pool import Pool
from largede.retrieval.mine.settings import List, MineSettings
from largede.retrieval.runs import Ranking, Run, read_run, write_run
from largede.retrieval.search import score_pairs, search

Query = str
Row = int


class WindowLists:
    """The lists of window `number` of a pool, in `folder`."""

    def __init__(self, folder: Path, pool: Pool, number: int, settings: MineSettings) -> None:
        self.folder = folder
        self.pool = pool
        self.number = number
        self.settings = settings
        self.window = pool.windows[number]

    def path(self, name: str) -> Path:
        return self.folder / f"{name}-{self.number:05d}.trec"

    def search_dense(self, embeddings: Embeddings, model: Model) -> None:
        queries, vectors = self.embedded(model)
        run = search(embeddings, queries, vectors, self.settings.depth, self.pool.corpus)
        write_run(self.path("dense"), run, "dense")

    def dense_inputs(self, embeddings: Embeddings, model: Model) -> dict[str, object]:
        return {
            "pairs": sha256_file(self.window),
            "embeddings": embeddings.fingerprint,
            "model": model.fingerprint,
            "tokens": self.settings.max_query_tokens,
            "depth": self.settings.depth,
        }

    def search_bm25(self, index: Path) -> None:
        settings = Bm25Settings(depth=self.settings.depth, threads=self.settings.bm25_threads)
        bm25_search(self.pool.corpus, Pool.queries(self.window), index, self.path("bm25"), settings)

    def bm25_inputs(self) -> dict[str, object]:
        corpus = self.pool.corpus.fingerprint
        return {"pairs": sha256_file(self.window), "corpus": corpus, "depth": self.settings.depth}

    def score_the_rest(self, embeddings: Embeddings, model: Model) -> None:
        """Write the dense scores that choosing needs and the dense list does not hold."""
        queries, vectors = self.embedded(model)
        wanted = self._without_a_score(queries)
        scores = dense_scores(embeddings, self.pool, wanted, dict(zip(queries, vectors, strict=True)))
        write_run(self.path("scores"), scores, "dense")

    def scores_inputs(self, embeddings: Embeddings, model: Model) -> dict[str, object]:
        lists = [sha256_file(self.path(name)) for name in self.settings.lists]
        return {**self.dense_inputs(embeddings, model), "lists": lists}

    def embedded(self, model: Model) -> tuple[list[Query], np.ndarray]:
        queries = Pool.queries(self.window)
        vectors = embed_checked(model.load(), list(queries.values()), "query", self.settings.max_query_tokens)
        return list(queries), vectors

    def read(self, name: List) -> Run:
        return read_run(self.path(name))

    def scored(self) -> Run:
        """What `score_the_rest` wrote; nothing where nothing compares scores."""
        return read_run(self.path("scores")) if self.settings.compares_scores else {}

    def _without_a_score(self, queries: list[Query]) -> dict[Query, set[Row]]:
        """The positives and the candidates of BM25 that the dense list lacks, by query."""
        wanted: dict[Query, set[Row]] = {query: set() for query in queries}
        for found in Pool.pairs(self.window):
            wanted[found.query_id].add(found.row)
        if "bm25" in self.settings.lists:
            for query, rows in self._rows("bm25").items():
                wanted[query] |= rows
        for query, rows in self._rows("dense").items():
            wanted[query] -= rows
        return wanted

    def _rows(self, name: List) -> dict[Query, set[Row]]:
        row_of = self.pool.row_of
        return {query: {row_of[id_] for id_ in ranking.ids} for query, ranking in self.read(name).items()}


def dense_scores(
    embeddings: Embeddings, pool: Pool, wanted: Mapping[Query, set[Row]], vectors: Mapping[Query, np.ndarray]
) -> Run:
    """The exact scores of some documents for each query, by the kernel that `search` scores its lists with.

    Raises DataError when the embeddings are not in the order of the corpus.
    """
    queries = list(wanted)
    row_P = np.array([row for query in queries for row in sorted(wanted[query])], dtype=np.int64)
    query_P = np.repeat(np.arange(len(queries)), [len(wanted[query]) for query in queries])
    score_P = np.empty(len(row_P), dtype=np.float32)
    for first, vector_ND in _shards_with_place(embeddings, pool):
        here = np.flatnonzero((row_P >= first) & (row_P < first + len(vector_ND)))
        if len(here) == 0:
            continue
        # Places of one query lie together, since they were listed query by query.
        for of_query in np.split(here, np.flatnonzero(np.diff(query_P[here])) + 1):
            query_D = vectors[queries[int(query_P[of_query[0]])]]
            score_P[of_query] = score_pairs(vector_ND[row_P[of_query] - first], query_D)
    ends = np.cumsum([len(wanted[query]) for query in queries])
    return {
        query: Ranking(tuple(pool.corpus.ids[row] for row in rows), scores)
        for query, rows, scores in zip(queries, np.split(row_P, ends[:-1]), np.split(score_P, ends[:-1]), strict=True)
        if len(rows)
    }


def _shards_with_place(embeddings: Embeddings, pool: Pool) -> Iterator[tuple[Row, np.ndarray]]:
    """The row of each shard's first document, and its vectors."""
    first = 0
    for ids, vector_ND in read_shards(embeddings):
        if tuple(ids) != pool.corpus.ids[first : first + len(ids)]:
            raise DataError(
                f"{embeddings.folder} holds other documents than {pool.corpus.path}",
                expected="the corpus unchanged since it was encoded",
                mend="encode it again",
            )
        yield first, vector_ND
        first += len(ids)
