"""FAISS on a GPU gives candidates; the lists are those of the CPU."""

import faiss
import numpy as np
import pytest
from made_vectors import clustered

from largede.retrieval.search import search_vectors
from largede.retrieval.search_settings import SearchSettings


@pytest.mark.parametrize("kind", ["flat", "flat-fp16", "flat-bf16"])
@pytest.mark.parametrize("depth", [10, 1000, 3000])
def test_lists_of_a_gpu_are_those_of_the_cpu(kind: str, depth: int) -> None:
    if not getattr(faiss, "get_num_gpus", int)():
        pytest.skip("needs faiss-gpu")
    table, asked = clustered(20_000, 256, 200), clustered(50, 256, 200, seed=1)
    table[700:900] = table[700]
    ids, names = [f"d{i}" for i in range(20_000)], [f"q{i}" for i in range(50)]
    shards = [(ids[:12_000], table[:12_000]), (ids[12_000:], table[12_000:])]
    runs = [
        search_vectors(shards, names, asked, depth, SearchSettings(kind=kind, device=device))  # type: ignore[arg-type]
        for device in ("cuda", "cpu")
    ]
    for query in names:
        assert runs[0][query].ids == runs[1][query].ids
        np.testing.assert_array_equal(runs[0][query].scores, runs[1][query].scores)
