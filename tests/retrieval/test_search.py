"""Exact search gives one answer, however the corpus is split and the queries are batched."""

from pathlib import Path

import numpy as np
import pytest
from beir_folder import write_collection, write_jsonl
from hash_encoder import hash_model

from largede.errors import DataError, ModelError
from largede.retrieval.corpus import open_corpus
from largede.retrieval.encode import Embeddings, EncodeSettings, encode_corpus, open_embeddings
from largede.retrieval.encoder import Model
from largede.retrieval.search import exact, score_pairs, search


class TableEncoder:
    """Gives text `i` row i of a table."""

    similarity = "dot"

    def __init__(self, table: np.ndarray) -> None:
        self.table = table
        self.dimension = table.shape[1]

    def embed(self, texts: list[str], side: str, max_tokens: int) -> np.ndarray:
        return self.table[[int(text) for text in texts]]


def embeddings_of(table: np.ndarray, folder: Path, shard_size: int) -> Embeddings:
    write_jsonl(folder / "corpus.jsonl", [{"_id": f"d{i}", "text": str(i)} for i in range(len(table))])
    out = folder / f"shards-of-{shard_size}"
    model = Model("table", "table", lambda: TableEncoder(table))
    encode_corpus(model, open_corpus(folder), out, EncodeSettings(shard_size=shard_size))
    return open_embeddings(out)


@pytest.fixture
def tied_table() -> np.ndarray:
    """700 vectors, of which many are equal: a tie of 240 across every border, and pairs that differ in last bits."""
    rng = np.random.default_rng(3)
    table = rng.standard_normal((700, 48)).astype(np.float32)
    table[100:340] = table[100]
    table[400:500] = table[300:400] * np.float32(1 + 2**-22)
    return table


def test_the_same_answer_for_every_split_and_batch(
    tmp_path: Path, tied_table: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = np.random.default_rng(5).standard_normal((40, 48)).astype(np.float32)
    queries[:10] += 3 * tied_table[100]
    names = [f"q{i}" for i in range(40)]
    true = tied_table.astype(np.float64) @ queries.astype(np.float64).T
    for shard_size, batch in ((700, 256), (333, 7), (150, 1)):
        monkeypatch.setattr(exact, "QUERIES_AT_ONCE", batch)
        run = search(embeddings_of(tied_table, tmp_path, shard_size), names, queries, 60)
        for place, name in enumerate(names):
            order = sorted(range(700), key=lambda i: (np.float32(true[i, place]), f"d{i}"), reverse=True)[:60]
            assert run[name].ids == tuple(f"d{i}" for i in order)
            np.testing.assert_array_equal(run[name].scores, true[order, place].astype(np.float32))


def test_the_kernel_scores_a_pair_by_itself(tied_table: np.ndarray) -> None:
    query = tied_table[7]
    together = score_pairs(tied_table, query)
    alone = [score_pairs(tied_table[i : i + 1], query)[0] for i in range(len(tied_table))]
    np.testing.assert_array_equal(together, alone)


def test_a_query_does_not_find_itself(tmp_path: Path, tied_table: np.ndarray) -> None:
    run = search(embeddings_of(tied_table, tmp_path, 700), ["d5", "q"], tied_table[[5, 5]], 10)
    assert "d5" not in run["d5"].ids
    assert run["q"].ids[0] == "d5"
    assert len(run["d5"]) == 10
    assert run["d5"].ids[:9] == run["q"].ids[1:]


def test_width_and_corpus_must_fit(tmp_path: Path, tied_table: np.ndarray) -> None:
    embeddings = embeddings_of(tied_table, tmp_path, 700)
    with pytest.raises(ModelError, match="queries of width 32 on an index of width 48"):
        search(embeddings, ["q"], np.zeros((1, 32), np.float32), 10)
    other = open_corpus(write_collection(tmp_path / "other"))
    with pytest.raises(DataError, match="is not the corpus that .* was made from"):
        search(embeddings, ["q"], np.zeros((1, 48), np.float32), 10, other)


def test_depth_beyond_the_corpus_gives_all_of_it(tmp_path: Path) -> None:
    corpus = open_corpus(write_collection(tmp_path / "data", documents=40))
    encode_corpus(hash_model(), corpus, tmp_path / "out", EncodeSettings(shard_size=6))
    query = hash_model().load().embed(["engine"], "query", 8)
    found = search(open_embeddings(tmp_path / "out"), ["q"], query, 1000)
    assert sorted(found["q"].ids) == sorted(corpus.ids)
