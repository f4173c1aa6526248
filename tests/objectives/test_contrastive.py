"""The block-wise loss with closed-form gradients equals the dense one under autograd, and float64 arithmetic."""

import pytest
import torch
from torch import Tensor

from largede.objectives.contrastive import UNKNOWN_KEY, dense_contrastive_loss, softmax_rows_against_columns


def made(rows: int, negatives: int, width: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def unit(count: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(count, width, generator=generator), dim=1)

    query_keys = torch.arange(3 * rows).view(rows, 3)
    query_keys[1, 0] = query_keys[0, 0]
    query_keys[2:4, 1] = UNKNOWN_KEY
    negative_keys = torch.full((negatives, 3), UNKNOWN_KEY)
    if negatives:
        negative_keys[0, 0] = query_keys[5, 0]
    return unit(rows), unit(rows), unit(negatives), query_keys, negative_keys


def both_directions(
    query: Tensor, positive: Tensor, negative: Tensor, query_keys: Tensor, negative_keys: Tensor, row_block: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    settings = {"temperature": 0.01, "batch_queries": len(query), "row_block": row_block}
    target = torch.arange(len(query))
    columns = torch.cat([positive, negative])
    column_keys = torch.cat([query_keys, negative_keys])
    there = softmax_rows_against_columns(query, columns, target, query_keys, column_keys, **settings)
    back = softmax_rows_against_columns(positive, query, target, query_keys, query_keys, **settings)
    n = len(query)
    return (
        there.loss + back.loss,
        there.d_row_RD + back.d_column_CD,
        there.d_column_CD[:n] + back.d_row_RD,
        there.d_column_CD[n:],
    )


@pytest.mark.parametrize("negatives", [0, 1, 23])
@pytest.mark.parametrize("row_block", [1, 5, 64])
def test_equals_dense_autograd(negatives: int, row_block: int) -> None:
    query, positive, negative, query_keys, negative_keys = made(17, negatives)
    loss, d_query, d_positive, d_negative = both_directions(
        query, positive, negative, query_keys, negative_keys, row_block
    )
    leaves = [t.double().requires_grad_() for t in (query, positive, negative)]
    # The dense twin computes in float32 by contract; float64 leaves only carry the gradient.
    twin = dense_contrastive_loss(*leaves, query_keys, negative_keys, temperature=0.01, passage_to_query=True)
    twin.backward()
    assert torch.isclose(loss.double(), twin.double(), rtol=1e-6)
    for ours, leaf in zip((d_query, d_positive, d_negative), leaves, strict=True):
        assert (ours - leaf.grad).norm() <= 1e-5 * leaf.grad.norm().clamp_min(1e-30)


def test_duplicates_are_left_out_and_unknown_keys_match_nothing() -> None:
    query, positive, negative, query_keys, negative_keys = made(8, 2)
    target = torch.arange(8)
    column_keys = torch.cat([query_keys, negative_keys])
    result = softmax_rows_against_columns(
        query,
        torch.cat([positive, negative]),
        target,
        query_keys,
        column_keys,
        temperature=0.1,
        batch_queries=8,
        row_block=3,
    )
    # 0 and 1 share a passage (two columns), and negative 0 is a copy of passage 5.
    assert result.statistics.masked.item() == 3
    assert result.statistics.negatives.item() == 8 * 10 - 8 - 3


def test_accuracy_and_reciprocal_rank_count_ties_against_the_row() -> None:
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    passage = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    result = softmax_rows_against_columns(
        query, passage, torch.arange(2), None, None, temperature=1.0, batch_queries=2, row_block=9
    )
    assert result.statistics.correct.item() == 0
    assert result.statistics.reciprocal_rank.item() == 1.0
