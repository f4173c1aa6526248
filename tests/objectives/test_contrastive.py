"""The block-wise loss with closed-form gradients equals the dense one under autograd, in bounded memory."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from largede.config.recipe import LossConfig
from largede.objectives.contrastive import (
    UNKNOWN_KEY,
    Keys,
    Similarities,
    SoftmaxStatistics,
    contrastive_gradient,
    dense_contrastive_loss,
)


def made(rows: int, negatives: int, width: int = 12) -> tuple[Tensor, Tensor, Tensor, Keys, Keys]:
    generator = torch.Generator().manual_seed(0)

    def unit(count: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(count, width, generator=generator), dim=1)

    identity = torch.arange(3 * rows).view(rows, 3)
    identity[1, 0] = identity[0, 0]
    identity[2:4, 1] = UNKNOWN_KEY
    answers = torch.full((rows, 2), UNKNOWN_KEY)
    answers[4, 1] = identity[6, 1]
    negative_identity = torch.full((negatives, 3), UNKNOWN_KEY)
    if negatives:
        negative_identity[0, 0] = identity[5, 0]
        answers[3, 0] = negative_identity[-1, 1] = 10**9
    return unit(rows), unit(rows), unit(negatives), Keys(identity, answers), Keys(negative_identity)


def gradient(
    query: Tensor,
    positive: Tensor,
    negative: Tensor,
    query_keys: Keys | None,
    negative_keys: Keys | None,
    **settings: Any,
) -> tuple[Tensor, Tensor, Tensor, SoftmaxStatistics]:
    """(loss, d query, d passages, statistics of the direction query to passage)."""
    passage_keys = None
    if query_keys is not None and negative_keys is not None:
        passage_keys = Keys(torch.cat([query_keys.identity_XK, negative_keys.identity_XK]))
    n = len(query)
    partner = (query * positive).sum(1)
    passage = torch.cat([positive, negative])
    similarities = Similarities(query, passage, torch.arange(n), n, query_keys, passage_keys, partner)
    found = contrastive_gradient(similarities, LossConfig(**settings))
    return found.loss, found.d_query_RD, found.d_passage_CD, found.statistics


@pytest.mark.parametrize("negatives", [0, 1, 23])
@pytest.mark.parametrize("block_scores", [1, 100, 10_000])
@pytest.mark.parametrize("margin", [None, 0.1])
def test_equals_dense_autograd(negatives: int, block_scores: int, margin: float | None) -> None:
    query, positive, negative, query_keys, negative_keys = made(17, negatives)
    loss, d_query, d_passage, _ = gradient(
        query, positive, negative, query_keys, negative_keys, block_scores=block_scores, margin=margin
    )
    leaves = [t.double().requires_grad_() for t in (query, positive, negative)]
    # The dense twin computes in float32 by contract; float64 leaves only carry the gradient.
    twin = dense_contrastive_loss(
        *leaves, query_keys, negative_keys, temperature=0.01, passage_to_query=True, margin=margin
    )
    twin.backward()
    assert torch.isclose(loss.double(), twin.double(), rtol=1e-6)
    for ours, leaf in zip((d_query, d_passage[:17], d_passage[17:]), leaves, strict=True):
        assert (ours - leaf.grad).norm() <= 1e-5 * leaf.grad.norm().clamp_min(1e-30)


def test_duplicates_are_left_out_and_unknown_keys_match_nothing() -> None:
    query, positive, negative, query_keys, negative_keys = made(8, 2)
    *_, statistics = gradient(query, positive, negative, query_keys, negative_keys, block_scores=24)
    # Queries 0 and 1 share a passage; negative 0 is the passage of query 5. Query 4 knows passage 6 to answer it, and
    # query 3 the last negative. Unknown keys are all equal, yet no match.
    assert statistics.masked == 5


def negatives_of_queries(query_keys: Keys, **settings: Any) -> Tensor:
    """(N, N): whether passage j is a negative of query i, seen from the gradient of one query at a time."""
    query, positive, _, _, _ = made(8, 0)
    seen = torch.zeros(8, 8, dtype=torch.bool)
    settings = {"temperature": 1.0, "passage_to_query": False, **settings}
    for i in range(8):
        row = slice(i, i + 1)
        similarities = Similarities(
            query[row],
            positive,
            torch.tensor([i]),
            8,
            query_keys.of(row),
            Keys(query_keys.identity_XK),
            (query * positive).sum(1),
        )
        seen[i] = contrastive_gradient(similarities, LossConfig(**settings)).d_passage_CD.abs().sum(1) > 0
    return seen


def test_a_known_answer_is_no_negative_of_its_query_but_of_all_others() -> None:
    query_keys = made(8, 0)[3]
    is_negative = negatives_of_queries(query_keys)
    assert not is_negative[4, 6]
    assert is_negative[6, 4] and is_negative[3, 6]
    assert not is_negative[0, 1] and not is_negative[1, 0]


def test_margin_leaves_out_what_beats_the_partner_by_more() -> None:
    query, positive, _, _, _ = made(8, 0)
    no_keys = Keys(torch.full((8, 3), UNKNOWN_KEY))
    is_negative = negatives_of_queries(no_keys, margin=0.2)
    similarity = query @ positive.T
    expected = (similarity <= similarity.diagonal()[:, None] + 0.2) | torch.eye(8, dtype=torch.bool)
    assert torch.equal(is_negative, expected)
    assert not expected.all()


def test_a_tie_counts_against_the_row() -> None:
    query = torch.nn.functional.normalize(torch.ones(2, 4), dim=1)
    *_, statistics = gradient(query, query, query[:0], None, None, temperature=1.0, block_scores=9)
    assert statistics.correct == 0
    assert statistics.reciprocal_rank == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("masks", [False, True])
def test_equals_the_dense_twin_at_4096(masks: bool) -> None:
    """With keys that mask right answers and without. No margin: rounding decides about scores that lie on it."""
    *texts, query_keys, negative_keys = made(4096, 4096, width=768)
    keys = (query_keys, negative_keys) if masks else (None, None)
    query, positive, negative = texts
    loss, d_query, d_passage, _ = gradient(query, positive, negative, *keys, block_scores=2**22)
    leaves = [t.clone().requires_grad_() for t in (query, positive, negative)]
    twin = dense_contrastive_loss(*leaves, *keys, temperature=0.01, passage_to_query=True)
    twin.backward()
    found = {"loss": float((loss - twin.detach()).abs() / twin.detach())}
    for name, ours, leaf in zip(
        ("query", "positive", "negative"), (d_query, d_passage[:4096], d_passage[4096:]), leaves, strict=True
    ):
        found[name] = float((ours - leaf.grad).norm() / leaf.grad.norm())
    print(
        f"4,096 pairs and as many hard negatives, masks {masks}, against the dense twin:",
        {k: f"{v:.1e}" for k, v in found.items()},
    )
    assert max(found.values()) < 1e-5


# Memory is what the operating system counts for a fresh process, above what it holds once torch is imported.
PEAK = """
import re, sys, torch
from pathlib import Path
from largede.config.recipe import LossConfig
from largede.training.scoring import BatchKeys, score_batch

def kib(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1))

pairs = int(sys.argv[1])
before = kib("VmRSS")
generator = torch.Generator().manual_seed(0)
query = torch.nn.functional.normalize(torch.randn(pairs, 768, generator=generator), dim=1)
passage = torch.nn.functional.normalize(torch.randn(pairs, 768, generator=generator), dim=1)
identity = torch.arange(3 * pairs).view(pairs, 3)
keys = BatchKeys(identity, torch.empty(pairs, 0, dtype=torch.int64), torch.empty(0, 3, dtype=torch.int64))
found = score_batch(query, passage, keys, LossConfig())
assert found.d_query_BD.shape == found.d_passage_BMD.shape == query.shape
print(found.score.loss, kib("VmHWM") - before)
"""


def loss_and_peak_gib(pairs: int) -> tuple[float, float]:
    words = subprocess.run(
        [sys.executable, "-c", PEAK, str(pairs)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())},
    ).stdout.split()
    return float(words[-2]), float(words[-1]) / 2**20


def memory_beside_the_vectors_gib(pairs: int) -> float:
    """Of the peak, what is neither representations nor their gradients."""
    loss, peak_gib = loss_and_peak_gib(pairs)
    extra = peak_gib - vectors_gib(pairs)
    print(f"{pairs} pairs: loss {loss:.4f}, peak {peak_gib:.2f} GiB, {extra:.2f} GiB beside the vectors")
    return extra


def vectors_gib(pairs: int) -> float:
    return 4 * pairs * 768 * 4 / 2**30


@pytest.fixture(scope="module")
def memory_at_8192_gib() -> float:
    return memory_beside_the_vectors_gib(8_192)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("pairs", [32_768, pytest.param(65_536, marks=pytest.mark.exhaustive)])
def test_65536_pairs_take_less_than_2_gib(pairs: int, memory_at_8192_gib: float) -> None:
    """Measured at fewer pairs as well: what does not grow leaves the same room at 65,536."""
    extra = memory_beside_the_vectors_gib(pairs)
    assert extra < memory_at_8192_gib + 0.1, "memory beside representations and gradients grows with the batch"
    assert vectors_gib(65_536) + extra < 2.0
