"""The loss of the whole contrastive batch and its gradient with respect to this rank's representations.

Shapes: B local queries, M local hard negatives, N queries of all ranks, D embedding width.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from largede.config.recipe import LossConfig
from largede.objectives.contrastive import SoftmaxStatistics, softmax_rows_against_columns
from largede.training.collectives import RowLayout, sum_over_ranks


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


def score_batch(
    query_BD: Tensor, passage_BMD: Tensor, query_key_BK: Tensor, negative_key_MK: Tensor, config: LossConfig
) -> BatchGradient:
    """Both directions of the loss over all ranks' rows. Collective; ranks may hold different B and M.

    Each rank scores its own rows against everybody's columns. The gradient it finds for the columns belongs to other
    ranks, so column gradients are summed over ranks before each takes its own rows.
    """
    B = len(query_BD)
    queries = RowLayout.of(B, query_BD.device)
    negatives = RowLayout.of(len(passage_BMD) - B, query_BD.device)
    N = queries.total
    query_ND, positive_ND = queries.gather(query_BD), queries.gather(passage_BMD[:B])
    negative_MD = negatives.gather(passage_BMD[B:])
    row_key, query_key, passage_key = None, None, None
    if config.mask_duplicates:
        row_key, query_key = query_key_BK, queries.gather(query_key_BK)
        passage_key = torch.cat([query_key, negatives.gather(negative_key_MK)])
    target_B = torch.arange(queries.local.start, queries.local.stop, device=query_BD.device)
    against = functools.partial(
        softmax_rows_against_columns,
        temperature=config.temperature,
        batch_queries=N,
        row_block=max(1, config.block_scores // (N + negatives.total)),
    )

    to_passage = against(query_BD, torch.cat([positive_ND, negative_MD]), target_B, row_key, passage_key)
    loss = to_passage.loss
    d_query_BD = to_passage.d_row_RD
    d_positive_BD = queries.sum_back(to_passage.d_column_CD[:N])
    d_negative_MD = negatives.sum_back(to_passage.d_column_CD[N:])
    if config.passage_to_query:
        to_query = against(passage_BMD[:B], query_ND, target_B, row_key, query_key)
        loss = loss + to_query.loss
        d_query_BD = d_query_BD + queries.sum_back(to_query.d_column_CD)
        d_positive_BD = d_positive_BD + to_query.d_row_RD
    score = _summarise(loss, to_passage.statistics, N)
    return BatchGradient(score, d_query_BD, torch.cat([d_positive_BD, d_negative_MD]))


def _summarise(loss: Tensor, local: SoftmaxStatistics, N: int) -> BatchScore:
    sums = sum_over_ranks(
        torch.stack(
            [
                loss,
                local.correct,
                local.reciprocal_rank,
                local.positive_similarity,
                local.negative_similarity,
                local.negatives,
                local.masked,
            ]
        )
    ).tolist()
    return BatchScore(
        loss=sums[0],
        accuracy=sums[1] / N,
        reciprocal_rank=sums[2] / N,
        positive_similarity=sums[3] / N,
        negative_similarity=sums[4] / max(1.0, sums[5]),
        masked_per_query=sums[6] / N,
    )
