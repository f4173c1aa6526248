"""Processes that share a search give the lists of a single one bit for bit, also after one was stopped."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from made_vectors import clustered, write_embeddings

from largede.errors import DataError, ModelError
from largede.retrieval.encode import Embeddings, Shard, open_embeddings, read_shard
from largede.retrieval.processes import Process
from largede.retrieval.runs import Run
from largede.retrieval.search import parts, search
from largede.retrieval.search.parts import search_together
from largede.retrieval.search_settings import HnswSettings, SearchSettings

NAMES = ["d5", *(f"q{i}" for i in range(19))]
ASKED = clustered(20, 16, 30, seed=1)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    table = clustered(900, 16, 30)
    # Ties across the shards, so across the processes.
    table[::9] = table[0]
    return write_embeddings(tmp_path_factory.mktemp("vectors") / "made", table, edges=(120, 300, 310, 640))


def assert_same(one: Run, other: Run) -> None:
    assert list(one) == list(other)
    for query in one:
        assert one[query].ids == other[query].ids
        np.testing.assert_array_equal(one[query].scores, other[query].scores)


def together(embeddings: Embeddings, folder: Path, ranks: int, settings: SearchSettings | None = None) -> Run:
    def one(rank: int) -> Run | None:
        return search_together(embeddings, NAMES, ASKED, 130, folder, Process(rank, ranks), None, settings)

    with ThreadPoolExecutor(ranks) as pool:
        runs = list(pool.map(one, range(ranks)))
    assert runs[1:] == [None] * (ranks - 1) and runs[0] is not None
    return runs[0]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_lists_of_several_are_those_of_one(ranks: int, embeddings: Embeddings, tmp_path: Path) -> None:
    """Seven ranks share five shards: two have nothing to do."""
    assert_same(together(embeddings, tmp_path, ranks), search(embeddings, NAMES, ASKED, 130))


def one_process(folder: Path, out: Path, rank: int, ranks: int, results: "multiprocessing.Queue[object]") -> None:
    run = search_together(open_embeddings(folder), NAMES, ASKED, 130, out, Process(rank, ranks))
    results.put(run and {query: (found.ids, found.scores) for query, found in run.items()})


def test_three_real_processes(embeddings: Embeddings, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    started = [
        spawn.Process(target=one_process, args=(embeddings.folder, tmp_path, rank, 3, results)) for rank in range(3)
    ]
    for process in started:
        process.start()
    found = [results.get(timeout=60) for _ in started]
    for process in started:
        process.join()
    (merged,) = (run for run in found if run)
    alone = search(embeddings, NAMES, ASKED, 130)
    assert {query: ids for query, (ids, _) in merged.items()} == {query: alone[query].ids for query in NAMES}
    for query in NAMES:
        np.testing.assert_array_equal(merged[query][1], alone[query].scores)


class Stopped(Exception):
    pass


def test_one_that_was_stopped_goes_on_with_the_next_shard(
    embeddings: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def reading(given: Embeddings, shard: Shard, stop_after: int) -> tuple[list[str], np.ndarray]:
        if len(read) == stop_after:
            raise Stopped
        found = read_shard(given, shard)
        read.append(len(found[0]))
        return found

    monkeypatch.setattr(parts, "_SECONDS_BETWEEN_SAVES", -1.0)
    monkeypatch.setattr(parts, "read_shard", lambda given, shard: reading(given, shard, 2))
    with pytest.raises(Stopped):
        together(embeddings, tmp_path, 1)
    monkeypatch.setattr(parts, "read_shard", lambda given, shard: reading(given, shard, 99))
    assert_same(together(embeddings, tmp_path, 1), search(embeddings, NAMES, ASKED, 130))
    assert read == [shard.rows for shard in embeddings.shards]
    together(embeddings, tmp_path, 1)
    assert len(read) == 5


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", "half"])
def test_a_damaged_part_is_done_again(damage: bytes | str, embeddings: Embeddings, tmp_path: Path) -> None:
    together(embeddings, tmp_path, 2)
    path = tmp_path / "part-00001-of-00002.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if isinstance(damage, str) else damage)
    assert_same(together(embeddings, tmp_path, 2), search(embeddings, NAMES, ASKED, 130))


def test_lists_of_other_queries_or_vectors_do_not_count(embeddings: Embeddings, tmp_path: Path) -> None:
    together(embeddings, tmp_path / "out", 2)
    other = write_embeddings(tmp_path / "other", clustered(900, 16, 30, seed=5), edges=(120, 300, 310, 640))
    assert_same(together(other, tmp_path / "out", 2), search(other, NAMES, ASKED, 130))
    flipped = search_together(other, NAMES, -ASKED, 130, tmp_path / "out", Process())
    assert flipped is not None
    assert_same(flipped, search(other, NAMES, -ASKED, 130))


def test_each_rank_has_an_index_of_its_own_shards(embeddings: Embeddings, tmp_path: Path) -> None:
    settings = SearchSettings(kind="hnsw", hnsw=HnswSettings(16, 100, 900))
    run, exact = together(embeddings, tmp_path, 2, settings), search(embeddings, NAMES, ASKED, 130)
    assert len(list(embeddings.folder.glob("index-hnsw-*"))) == 2
    shared = [len({*run[query].ids} & {*exact[query].ids}) / 130 for query in NAMES]
    assert np.mean(shared) > 0.9
    for query in NAMES:
        true = exact[query].scored()
        assert all(true[id_] == score for id_, score in run[query].scored().items() if id_ in true)


def test_width_and_names_must_be_right(embeddings: Embeddings, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="queries of width 8"):
        search_together(embeddings, NAMES, ASKED[:, :8], 10, tmp_path, Process())
    damaged = write_embeddings(tmp_path / "made", clustered(90, 16, 30), edges=(30,))
    (damaged.folder / "shard-00001.ids").write_text("other\n")
    with pytest.raises(DataError, match="shard-00001.* is missing or damaged"):
        search_together(damaged, NAMES, ASKED, 10, tmp_path / "out", Process())
