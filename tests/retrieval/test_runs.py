"""Run files come back as they were written, in trec_eval's order, and bad ones are named."""

from pathlib import Path

import numpy as np
import pytest

from largede.errors import DataError
from largede.retrieval.runs import rank, read_run, write_run


def test_scores_and_order_survive(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    run = {"q1": rank([f"d{i}" for i in range(500)], scores, 100), "q2": rank(["a", "b"], [1.0, 1.0], 5)}
    write_run(tmp_path / "x.trec", run, "tag")
    again = read_run(tmp_path / "x.trec")
    assert {q: r.ids for q, r in again.items()} == {q: r.ids for q, r in run.items()}
    np.testing.assert_array_equal(again["q1"].scores, run["q1"].scores)
    assert again["q2"].ids == ("b", "a")


def test_ties_are_cut_by_descending_id() -> None:
    assert rank(["a", "c", "b", "z"], [1.0, 1.0, 1.0, 0.5], 2).ids == ("c", "b")
    # Equal as float32, which is what trec_eval compares.
    assert rank(["a", "b"], [1.0 + 1e-9, 1.0], 2).ids == ("b", "a")


def test_any_depth_is_the_beginning_of_the_whole_list() -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 7, 60):
        ids = [f"d{i}" for i in rng.permutation(size)]
        scores = rng.integers(-2, 3, size).astype(np.float32) * np.float32(0.5)
        whole = sorted(range(size), key=lambda i: (scores[i], ids[i]), reverse=True)
        for depth in range(1, size + 2):
            assert rank(ids, scores, depth).ids == tuple(ids[i] for i in whole[:depth])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("q Q0 d 1 0.5", "line 1: 'q Q0 d 1 0.5'"),
        ("q Q0 d 1 0.5 t\nq Q0 e 2 high t", "line 2: 'q Q0 e 2 high t'"),
        ("q Q0 d 1 nan t", "a score of query 'q' is not finite"),
        ("q Q0 d 1 0.5 t\nq Q0 d 2 0.4 t", "document 'd' is twice in the list of query 'q'"),
    ],
)
def test_bad_run_files(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "x.trec").write_text(lines + "\n")
    with pytest.raises(DataError, match=message):
        read_run(tmp_path / "x.trec")


def test_a_missing_run_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no run file"):
        read_run(tmp_path / "absent.trec")


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    class Unreadable(dict):  # type: ignore[type-arg]
        def items(self):  # type: ignore[no-untyped-def]
            yield "q", rank(["d"], [1.0], 1)
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_run(tmp_path / "x.trec", Unreadable(), "tag")
    assert not list(tmp_path.iterdir())
