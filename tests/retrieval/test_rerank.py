"""Re-ranking against its plain twin and against the dense list; candidates from anywhere in the shards."""

import numpy as np
import pytest
from beir_folder import write_collection
from hash_encoder import hash_model

from largede.errors import DataError, ModelError
from largede.retrieval.corpus import Corpus, open_corpus
from largede.retrieval.encode import Embeddings, EncodeSettings, encode_corpus, open_embeddings, read_shards
from largede.retrieval.rerank import rerank
from largede.retrieval.runs import Ranking, Run, rank
from largede.retrieval.search import search

QUERIES = {f"q{i}": text for i, text in enumerate(["engine 01word", "harbour", "violin 07word 09word", "glacier"])}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Embeddings, np.ndarray]:
    folder = tmp_path_factory.mktemp("rerank")
    corpus = open_corpus(write_collection(folder / "data"))
    encode_corpus(hash_model(), corpus, folder / "embeddings", EncodeSettings(shard_size=37))
    query_QD = hash_model().load().embed(list(QUERIES.values()), "query", 64)
    return corpus, open_embeddings(folder / "embeddings"), query_QD


def some_list(corpus: Corpus, seed: int, length: int = 60) -> Ranking:
    ids = np.random.default_rng(seed).choice(corpus.ids, length, replace=False).tolist()
    return rank(ids, [float(-place) for place in range(length)], length)


def plain_rerank(run: Run, depth: int, embeddings: Embeddings, query_QD: np.ndarray) -> dict[str, list[str]]:
    """Every inner product by itself, in the order of (score, id)."""
    vectors = {
        id_: vector for ids, vector_ND in read_shards(embeddings) for id_, vector in zip(ids, vector_ND, strict=True)
    }
    lists = {}
    for query, query_D in zip(QUERIES, query_QD, strict=True):
        if query in run:
            scores = {
                id_: np.float32(np.dot(vectors[id_].astype(np.float64), query_D)) for id_ in run[query].ids[:depth]
            }
            lists[query] = sorted(scores, key=lambda id_: (scores[id_], id_), reverse=True)
    return lists


def test_equals_the_plain_twin_at_any_depth(encoded: tuple[Corpus, Embeddings, np.ndarray]) -> None:
    corpus, embeddings, query_QD = encoded
    run = {query: some_list(corpus, seed) for seed, query in enumerate(QUERIES)}
    for depth in (1, 2, 25, 60, 1000):
        found = rerank(run, depth, embeddings, list(QUERIES), query_QD)
        assert {query: list(ranking.ids) for query, ranking in found.items()} == plain_rerank(
            run, depth, embeddings, query_QD
        )
        assert {len(ranking) for ranking in found.values()} == {min(depth, 60)}


def test_is_the_dense_list_restricted_to_the_candidates(encoded: tuple[Corpus, Embeddings, np.ndarray]) -> None:
    corpus, embeddings, query_QD = encoded
    run = {query: some_list(corpus, seed) for seed, query in enumerate(QUERIES)}
    found = rerank(run, 40, embeddings, list(QUERIES), query_QD)
    dense = search(embeddings, list(QUERIES), query_QD, len(corpus), corpus)
    for query in QUERIES:
        kept = set(run[query].ids[:40])
        expected = {id_: score for id_, score in dense[query].scored().items() if id_ in kept}
        assert found[query].scored() == expected
        assert list(found[query].ids) == list(expected)


def test_a_query_without_a_list_stays_without_and_its_own_document_is_left_out(
    encoded: tuple[Corpus, Embeddings, np.ndarray],
) -> None:
    corpus, embeddings, query_QD = encoded
    lone = Ranking(("d003",), np.ones(1, dtype=np.float32))
    empty = Ranking((), np.empty(0, dtype=np.float32))
    run = {"q0": lone, "q2": empty, "unasked": some_list(corpus, 1), "d003": lone}
    found = rerank(run, 10, embeddings, ["q0", "q1", "q2", "d003"], query_QD)
    assert {query: ranking.ids for query, ranking in found.items()} == {"q0": ("d003",), "q2": (), "d003": ()}
    assert rerank({}, 10, embeddings, list(QUERIES), query_QD) == {}


def test_what_does_not_fit_is_refused(encoded: tuple[Corpus, Embeddings, np.ndarray]) -> None:
    _, embeddings, query_QD = encoded
    run = {"q1": Ranking(("d001", "elsewhere"), np.array([2, 1], dtype=np.float32))}
    with pytest.raises(DataError, match="document 'elsewhere', found for query 'q1'"):
        rerank(run, 10, embeddings, list(QUERIES), query_QD)
    assert rerank(run, 1, embeddings, list(QUERIES), query_QD)["q1"].ids == ("d001",)
    with pytest.raises(ModelError, match="width 9"):
        rerank(run, 10, embeddings, list(QUERIES), np.ones((4, 9), dtype=np.float32))
