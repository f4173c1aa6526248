"""The index table counts what it says: recall against exact search, and costs of an index that was really built."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_vectors import clustered, write_embeddings

from largede.errors import RecipeError
from largede.retrieval.runs import Run, rank
from largede.retrieval.search import search
from largede.retrieval.search.compare import compare_indexes, recall
from largede.retrieval.search_settings import INDEX_KINDS, HnswSettings, SearchSettings

NAMES = [f"q{i}" for i in range(30)]


def test_all_kinds_side_by_side(tmp_path: Path) -> None:
    embeddings = write_embeddings(tmp_path / "made", clustered(2000, 32, 40), edges=(900,))
    asked = clustered(30, 32, 40, seed=1)
    runs: list[Run] = []

    def measure(run: Run) -> dict[str, float]:
        runs.append(run)
        return {"first is d0": float(np.mean([run[query].ids[0] == "d0" for query in run]))}

    settings = SearchSettings(hnsw=HnswSettings(8, 40, 40))
    compared = compare_indexes(embeddings, NAMES, asked, INDEX_KINDS, settings, measure=measure, timed_queries=5)
    json.dumps(compared)
    rows = {row["kind"]: row for row in compared["indexes"]}
    assert list(rows) == list(INDEX_KINDS) and len(runs) == len(rows)
    assert set(rows["flat"]["recall"].values()) == {1.0}
    exact = search(embeddings, NAMES, asked, 100)
    for run, row in zip(runs, compared["indexes"], strict=True):
        counted = [len({*run[q].ids[:20]} & {*exact[q].ids[:20]}) / 20 for q in NAMES]
        assert row["recall"]["20"] == pytest.approx(np.mean(counted))
        assert row["measures"]["first is d0"] == np.mean([run[q].ids[0] == "d0" for q in NAMES])
        assert row["build_s"] > 0 and row["ms_per_query_batch_1"] > 0 and row["ms_per_query_large_batch"] > 0
        assert 0.5 < row["recall"]["20"] <= 1 and row["bytes_in_memory"] >= 0
    assert rows["flat"]["bytes_on_disk"] == pytest.approx(4 * 2000 * 32, rel=0.01)
    assert rows["flat-fp16"]["bytes_on_disk"] == pytest.approx(2 * 2000 * 32, rel=0.01)
    assert rows["ivf-pq"]["bytes_on_disk"] < rows["hnsw-sq8"]["bytes_on_disk"] < rows["hnsw"]["bytes_on_disk"]
    with pytest.raises(RecipeError, match="an index kind 'lsh'"):
        compare_indexes(embeddings, NAMES, asked, ["lsh"])


def test_an_index_is_weighed_in_a_process_of_its_own(tmp_path: Path) -> None:
    embeddings = write_embeddings(tmp_path / "made", clustered(40_000, 64, 40))
    row = compare_indexes(embeddings, NAMES, clustered(30, 64, 40), ["flat"], timed_queries=2)["indexes"][0]
    assert row["bytes_in_memory"] == pytest.approx(4 * 40_000 * 64, rel=0.3)


def test_recall_is_a_share_of_what_exact_search_found() -> None:
    exact = {"q": rank(["a", "b", "c", "d"], [4, 3, 2, 1], 4), "short": rank(["a"], [1], 4), "empty": rank([], [], 4)}
    run = {"q": rank(["b", "a", "x", "y"], [4, 3, 2, 1], 4), "short": rank(["z"], [1], 4), "empty": rank([], [], 4)}
    assert recall(run, exact, 1) == 0.0
    assert recall(run, exact, 2) == 0.5
    assert recall(run, exact, 4) == 0.25
