"""Exact search equals its plain twin bit for bit, whatever is split, tied, zero or rounded."""

from pathlib import Path

import numpy as np
import pytest
from made_vectors import clustered, write_embeddings

from largede.errors import DataError
from largede.retrieval.document_ids import DocumentIds
from largede.retrieval.encode import open_embeddings
from largede.retrieval.runs import Run
from largede.retrieval.search import devices, exact, score_pairs, search, search_vectors
from largede.retrieval.search.exact import search_plainly
from largede.retrieval.search.kernel import score_rows
from largede.retrieval.search.lists import TopLists
from largede.retrieval.search.storage import rounded, to_bfloat16
from largede.retrieval.search_settings import SearchSettings


def assert_same(one: Run, other: Run) -> None:
    assert list(one) == list(other)
    for query in one:
        assert one[query].ids == other[query].ids
        np.testing.assert_array_equal(one[query].scores, other[query].scores)
        assert one[query].scores.dtype == np.float32


def hostile_table(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Repeated vectors, vectors that differ in last bits, zeros, tiny and large ones."""
    table = rng.standard_normal((rows, width)).astype(np.float32)
    table[rng.random(rows) < 0.3] = table[0]
    near = rng.random(rows) < 0.2
    table[near] = table[1] * (1 + np.float32(2**-23) * rng.integers(-3, 4, near.sum())[:, None]).astype(np.float32)
    table[rng.random(rows) < 0.1] = 0
    table[rng.random(rows) < 0.05] *= np.float32(1e-22)
    table[rng.random(rows) < 0.05] *= 40
    return table


@pytest.mark.parametrize("kind", ["flat", "flat-fp16", "flat-bf16"])
@pytest.mark.parametrize("seed", range(8))
def test_the_same_lists_for_every_split_batch_and_block(seed: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    rows, width = int(rng.integers(30, 900)), int(rng.integers(1, 70))
    queries, depth = int(rng.integers(1, 101)), int(rng.choice([1, 3, 20, 100, 2000]))
    table, asked = hostile_table(rng, rows, width), hostile_table(rng, queries, width)
    ids = [f"d{number}" for number in rng.permutation(rows)]
    # Every third query is also the name of a document.
    names = [ids[i % rows] if i % 3 == 0 and i < rows else f"q{i}" for i in range(queries)]
    twin = search_plainly(ids, rounded(table, kind), names, asked, depth)
    for _ in range(3):
        edges = [0, *sorted(rng.choice(np.arange(1, rows), int(rng.integers(0, 6)), replace=False).tolist()), rows]
        shards = [(ids[a:b], table[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        monkeypatch.setattr(exact, "QUERIES_AT_ONCE", int(rng.integers(1, 101)))
        monkeypatch.setattr(exact, "_PAIRS_AT_ONCE", int(rng.choice([10, 1000, 10**6])))
        settings = SearchSettings(kind=kind)  # type: ignore[arg-type]
        known = ids if rng.random() < 0.5 else None
        assert_same(search_vectors(shards, names, asked, depth, settings, known), twin)


@pytest.mark.parametrize("block", [3, 50, 4096])
def test_blocks_of_a_shard_do_not_show(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table, asked = clustered(5000, 24, 40), clustered(9, 24, 40, seed=1)
    names, ids = [f"q{i}" for i in range(9)], [str(i) for i in range(5000)]
    monkeypatch.setattr(exact, "_SMALLEST_BLOCK", block)
    monkeypatch.setattr(exact, "_SCORES_AT_ONCE", 1)
    assert_same(search_vectors([(ids, table)], names, asked, 30), search_plainly(ids, table, names, asked, 30))


def test_a_model_that_gives_one_vector_for_everything_is_searched_by_name_alone() -> None:
    table = np.ones((3000, 16), np.float32)
    ids = [f"{i:04d}" for i in range(3000)]
    run = search_vectors([(ids[:1700], table[:1700]), (ids[1700:], table[1700:])], ["a", "b"], table[:2], 40)
    assert run["a"].ids == run["b"].ids == tuple(sorted(ids, reverse=True)[:40])


def test_the_kernel_gives_the_float32_nearest_to_the_true_sum() -> None:
    rng = np.random.default_rng(0)
    table, query = rng.standard_normal((300, 768)).astype(np.float32), rng.standard_normal(768).astype(np.float32)
    true = table.astype(np.longdouble) @ query.astype(np.longdouble)
    np.testing.assert_array_equal(score_pairs(table, query), true.astype(np.float32))


def test_the_kernel_does_not_see_neighbours_threads_or_alignment() -> None:
    rng = np.random.default_rng(1)
    for width in (1, 2, 7, 64, 383, 768):
        table, asked = (rng.standard_normal((n, width)).astype(np.float32) for n in (700, 5))
        rows = [rng.integers(0, 700, int(rng.integers(0, 600))) for _ in range(5)]
        shifted = np.empty(700 * width + 1, np.float32)[1:].reshape(700, width)
        shifted[:] = table
        for vectors, threads in ((table, 1), (table, 3), (shifted, 2), (np.asfortranarray(table), 1)):
            for found, row, query in zip(score_rows(vectors, rows, asked, threads), rows, asked, strict=True):
                np.testing.assert_array_equal(found, [score_pairs(table[r : r + 1], query)[0] for r in row])


@pytest.mark.parametrize("gpus", [1, 3])
@pytest.mark.parametrize("half", [False, True])
def test_candidates_of_faiss_in_parts_give_the_same_lists(
    gpus: int, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPU indexes with FAISS's CPU ones in their place: the splitting, the bounds and the scan of short lists."""
    import faiss

    held: list[int] = []

    class StandIn:
        """With float16 storage FAISS rounds the queries too."""

        def __init__(self, vector_ND: np.ndarray, half: bool) -> None:
            self.index, self.half, self.ntotal = faiss.IndexFlatIP(vector_ND.shape[1]), half, len(vector_ND)
            self.index.add(vector_ND)

        def search(self, query_BD: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
            asked = query_BD.astype(np.float16).astype(np.float32) if self.half else query_BD
            return self.index.search(asked, count)

    def stand_in(vector_ND: np.ndarray, gpu: int, *, half: bool) -> StandIn:
        held.append(gpu)
        return StandIn(vector_ND, half)

    monkeypatch.setattr(devices, "gpu_index", stand_in)
    monkeypatch.setattr(devices, "_gpus_here", lambda: gpus)
    monkeypatch.setattr(devices, "GPU_CANDIDATES", 90)
    rng = np.random.default_rng(4)
    table, asked = hostile_table(rng, 900, 32), hostile_table(rng, 30, 32)
    ids, names = [f"d{i}" for i in range(900)], [f"q{i}" for i in range(30)]
    kind = "flat-fp16" if half else "flat"
    settings = SearchSettings(kind=kind, device="cuda", gpus=gpus)  # type: ignore[arg-type]
    for depth in (5, 60, 300):
        run = search_vectors([(ids[:500], table[:500]), (ids[500:], table[500:])], names, asked, depth, settings)
        assert_same(run, search_plainly(ids, rounded(table, kind), names, asked, depth))
    assert set(held) == set(range(gpus))


def test_float16_shards_are_searched_as_the_numbers_they_hold(tmp_path: Path) -> None:
    table = clustered(400, 32, 20)
    write_embeddings(tmp_path / "half", table.astype(np.float16), edges=(150, 300))
    names, ids = ["q0", "q1"], [f"d{i}" for i in range(400)]
    run = search(open_embeddings(tmp_path / "half"), names, table[:2], 50)
    assert_same(run, search_plainly(ids, table.astype(np.float16).astype(np.float32), names, table[:2], 50))


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    numbers = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    low = (numbers.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    high = ((numbers.view(np.uint32) & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32)
    nearest = np.where(np.abs(numbers - low) < np.abs(numbers - high), low, high)
    np.testing.assert_array_equal(to_bfloat16(numbers), nearest)
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0.0], np.float32)
    np.testing.assert_array_equal(to_bfloat16(ties), np.array([1, 1 + 2**-6, -1, 0], np.float32))


def test_numbers_beyond_float16_are_refused() -> None:
    with pytest.raises(DataError, match="numbers above 65,504"):
        rounded(np.array([[7e4]], np.float32), "flat-fp16")


def test_names_are_kept_whole() -> None:
    parts = [["a", "é-ü", "日本"], [], ["d" * 300]]
    names = DocumentIds(parts)
    whole = [name for part in parts for name in part]
    assert list(names) == whole == [names[i] for i in range(len(names))] == list(names[0:4])
    with pytest.raises(IndexError):
        names[4]


def test_a_found_list_reads_like_any_other() -> None:
    lists = TopLists.empty(2, 4)
    lists.add(np.array([[1, 3, 2], [-np.inf] * 3], np.float32), np.array([[0, 1, 2], [-1] * 3], np.int32), "xyz")
    run = lists.run(["q", "nothing"], "xyz", 3)
    assert run["q"].ids == ("y", "z", "x") and len(run["q"]) == 3 and len(run["nothing"]) == 0
    assert run["q"].scored() == {"y": 3.0, "z": 2.0, "x": 1.0}
    assert run["q"].top(2).ids == ("y", "z") and len(run["q"].top(2)) == 2


def test_many_lists_take_eight_bytes_for_a_document() -> None:
    lists = TopLists.empty(1000, 100)
    assert lists.score_QK.nbytes + lists.row_QK.nbytes == 8 * 1000 * 100
