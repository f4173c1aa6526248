"""Rough scores are off by no more than the search allows for, whichever library multiplies."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from largede.onednn import has_products, keeps_float32
from largede.retrieval.search.devices import float32_rounding
from largede.retrieval.search.products import rough_scores

packable = pytest.mark.skipif(not has_products(torch.float32), reason="numpy multiplies on this processor")


@pytest.fixture
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 50, 33), (2, 1, 7), (100, 3, 64), (7, 300, 385), (64, 2048, 768)])
def test_no_score_is_off_by_more_than_the_slack(shape: tuple[int, int, int]) -> None:
    queries, documents, width = shape
    rng = np.random.default_rng(width)
    query_BD = rng.standard_normal((queries, width)).astype(np.float32)
    vector_ND = rng.standard_normal((documents, width)).astype(np.float32) * np.float32(40)
    exact_BN = query_BD.astype(np.float64) @ vector_ND.T.astype(np.float64)
    lengths_BN = np.linalg.norm(query_BD, axis=1)[:, None] * np.linalg.norm(vector_ND, axis=1)
    for found_BN in (rough_scores(query_BD, vector_ND), query_BD @ vector_ND.T):
        assert found_BN.dtype == np.float32 and found_BN.shape == (queries, documents)
        assert (np.abs(found_BN - exact_BN) <= float32_rounding(width) * lengths_BN).all()


@packable
def test_a_mapped_shard_is_read_without_a_warning(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((300, 40)).astype(np.float32)
    np.save(tmp_path / "shard.npy", table)
    mapped = np.load(tmp_path / "shard.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rough_scores(table[:5], mapped[10:200])
    np.testing.assert_allclose(found, table[:5] @ table[10:200].T, atol=1e-4)


@packable
@pytest.mark.parametrize("place", ["backends", "backends.mkldnn", "backends.mkldnn.matmul"])
def test_fewer_bits_by_the_newer_settings_are_seen_too(place: str) -> None:
    if not hasattr(torch.backends.mkldnn, "matmul"):
        pytest.skip("torch before 2.9 has no such settings")
    code = f"""if True:
        import torch
        torch.{place}.fp32_precision = "bf16"
        import numpy as np
        from largede.onednn import keeps_float32
        from largede.retrieval.search.products import rough_scores
        assert not keeps_float32()
        rough_scores(np.ones((20, 8), "f4"), np.ones((50, 8), "f4"))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@packable
@pytest.mark.parametrize("asked", ["high", "medium"])
def test_who_lets_torch_compute_with_fewer_bits_gets_numpys_products(asked: str, precision: None) -> None:
    assert keeps_float32()
    torch.set_float32_matmul_precision(asked)
    assert not keeps_float32()
    rng = np.random.default_rng(0)
    query_BD, vector_ND = (rng.standard_normal((n, 64)).astype(np.float32) for n in (20, 500))
    np.testing.assert_array_equal(rough_scores(query_BD, vector_ND), query_BD @ vector_ND.T)
