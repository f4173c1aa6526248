"""The loss of the whole contrastive batch and its gradient with respect to this rank's representations.

Shapes: B local queries, M local hard negatives, N queries and C passages of all ranks, D embedding width, K identity
keys, A known answers of a query.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from largede.config.recipe import LossConfig
from largede.objectives.contrastive import (
    ExponentialSums,
    Keys,
    Similarities,
    SoftmaxStatistics,
    contrastive_gradient,
)
from largede.training.collectives import RowLayout, largest_over_ranks, layouts_of, sum_over_ranks


@dataclass(frozen=True)
class BatchScore:
    """Figures of the global batch, equal on all ranks."""

    loss: float
    accuracy: float
    reciprocal_rank: float
    positive_similarity: float
    negative_similarity: float
    masked_per_query: float


@dataclass(frozen=True)
class BatchGradient:
    """The score, and d loss / d representation of the local queries (B, D) and passages (B + M, D), float32."""

    score: BatchScore
    d_query_BD: Tensor
    d_passage_BMD: Tensor


@dataclass(frozen=True)
class BatchKeys:
    """This rank's keys (int64): of its queries (B, K), their known answers (B, A), and its negatives (M, K)."""

    query_BK: Tensor
    answer_BA: Tensor
    negative_MK: Tensor


def score_batch(query_BD: Tensor, passage_BMD: Tensor, keys: BatchKeys, config: LossConfig) -> BatchGradient:
    """Both directions of the loss over all ranks' rows. Collective; ranks may hold different B, M and A.

    Each rank scores its own queries against everybody's passages. The gradient it finds for the passages belongs to
    other ranks too, so it is summed over ranks before each takes its own rows; that of its queries is complete.
    """
    B = len(query_BD)
    queries, negatives = layouts_of((B, len(passage_BMD) - B), query_BD.device)
    own = queries.local
    partner_N = None
    if config.margin is not None:
        partner_N = queries.gather((query_BD.float() * passage_BMD[:B].float()).sum(1))
    query_keys, passage_keys = None, None
    if config.mask_duplicates:
        query_keys = Keys(keys.query_BK, keys.answer_BA)
        passage_keys = Keys(gather_both(torch.cat([keys.query_BK, keys.negative_MK]), queries, negatives))
    similarities = Similarities(
        query_BD,
        gather_both(passage_BMD, queries, negatives),
        torch.arange(own.start, own.stop, device=query_BD.device),
        queries.total,
        query_keys,
        passage_keys,
        partner_N,
    )
    local = contrastive_gradient(similarities, config, complete_over_ranks)
    d_passage_BMD = sum_back_both(local.d_passage_CD, queries, negatives)
    return BatchGradient(_summarise(local.loss, local.statistics, queries.total), local.d_query_RD, d_passage_BMD)


def gather_both(local_BM: Tensor, queries: RowLayout, negatives: RowLayout) -> Tensor:
    """Rows of all positives in the order of the queries, then of all hard negatives (C, ...). Collective."""
    if queries.is_alone:
        return local_BM
    B = queries.counts[queries.rank]
    positive_N = queries.gather(local_BM[:B])
    return torch.cat([positive_N, negatives.gather(local_BM[B:])]) if negatives.total else positive_N


def sum_back_both(gradient_C: Tensor, queries: RowLayout, negatives: RowLayout) -> Tensor:
    """This rank's rows (B + M, ...) of the sum over ranks of a gradient for all passages. Collective."""
    if queries.is_alone:
        return gradient_C
    N = queries.total
    own_B = queries.sum_back(gradient_C[:N])
    return torch.cat([own_B, negatives.sum_back(gradient_C[N:])]) if negatives.total else own_B


def complete_over_ranks(columns: ExponentialSums) -> None:
    """Every rank saw the columns in the rows of its own queries only; add them up. Collective."""
    columns.raise_to(largest_over_ranks(columns.largest_X))
    columns.sum_X.copy_(sum_over_ranks(columns.sum_X))


def _summarise(loss: Tensor, local: SoftmaxStatistics, N: int) -> BatchScore:
    sums = sum_over_ranks(torch.stack([loss.double(), *vars(local).values()])).tolist()
    return BatchScore(
        loss=sums[0],
        accuracy=sums[1] / N,
        reciprocal_rank=sums[2] / N,
        positive_similarity=sums[3] / N,
        negative_similarity=sums[4] / max(1.0, sums[5]),
        masked_per_query=sums[6] / N,
    )
