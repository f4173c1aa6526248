"""In-batch sampled softmax over the whole contrastive batch, and its gradient, in row blocks.

Shapes: R local rows, C columns of the whole batch, N queries of the whole batch, M hard negatives of the whole batch,
D embedding width, K identity keys of one item.

Source: Ni et al. 2021, "Large Dual Encoders Are Generalizable Retrievers", equation 1 and section 2; the two
directions are summed and the direction passage to query leaves hard negatives out, as in t5x_retrieval.

Nothing here knows of processes: a rank passes its own rows and everybody's columns, gets the gradient for both, and
the caller sums the column gradients over ranks. Memory is O(row_block x C) beside the inputs and the gradients.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

UNKNOWN_KEY = -1
"""Key of something without identity, such as a passage without id: it equals nothing, not even itself."""


@dataclass(frozen=True)
class SoftmaxStatistics:
    """Sums over the local rows, to be added over ranks: what a person watches beside the loss."""

    correct: Tensor
    reciprocal_rank: Tensor
    positive_similarity: Tensor
    negative_similarity: Tensor
    negatives: Tensor
    masked: Tensor


@dataclass(frozen=True)
class RowsAgainstColumns:
    """Loss summed over local rows (float32 scalar) and its gradients (float32), already divided by N."""

    loss: Tensor
    d_row_RD: Tensor
    d_column_CD: Tensor
    statistics: SoftmaxStatistics


def softmax_rows_against_columns(
    row_RD: Tensor,
    column_CD: Tensor,
    target_R: Tensor,
    row_key_RK: Tensor | None,
    column_key_CK: Tensor | None,
    *,
    temperature: float,
    batch_queries: int,
    row_block: int,
) -> RowsAgainstColumns:
    """Cross entropy of each row against its target column among all columns, with closed-form gradients.

    A column that shares any key with the row (and is not its target) is left out of the row's softmax: it is another
    copy of the right answer, not a negative. Pass no keys to keep every column.

    Args:
        row_RD, column_CD: embeddings of any floating type; scores are computed in float32.
        target_R: int64, the column of each row's own partner.
        row_key_RK, column_key_CK: int64 identities; UNKNOWN_KEY matches nothing.
        temperature: divides the scores.
        batch_queries: N, so that summing `loss` over ranks gives the mean over the global batch.
        row_block: rows whose scores are held at a time.
    """
    row_RD, column_CD = row_RD.float(), column_CD.float()
    d_row_RD = torch.empty_like(row_RD)
    d_column_CD = torch.zeros_like(column_CD)
    loss = row_RD.new_zeros(())
    totals = row_RD.new_zeros(6)
    for start in range(0, len(row_RD), row_block):
        block = slice(start, min(start + row_block, len(row_RD)))
        score_rC = row_RD[block] @ column_CD.T / temperature
        target_r = target_R[block]
        masked_rC = _duplicates(row_key_RK, column_key_CK, block, target_r)
        totals += _statistics(score_rC, target_r, masked_rC, temperature)
        if masked_rC is not None:
            score_rC.masked_fill_(masked_rC, float("-inf"))
        log_sum_r = torch.logsumexp(score_rC, dim=1)
        target_score_r = score_rC.gather(1, target_r[:, None]).squeeze(1)
        loss += (log_sum_r - target_score_r).sum() / batch_queries
        d_score_rC = score_rC.sub_(log_sum_r[:, None]).exp_()
        d_score_rC[torch.arange(len(target_r), device=target_r.device), target_r] -= 1.0
        d_score_rC *= 1.0 / (temperature * batch_queries)
        d_row_RD[block] = d_score_rC @ column_CD
        d_column_CD.addmm_(d_score_rC.T, row_RD[block])
    return RowsAgainstColumns(loss, d_row_RD, d_column_CD, SoftmaxStatistics(*totals.unbind()))


def _duplicates(
    row_key_RK: Tensor | None, column_key_CK: Tensor | None, block: slice, target_r: Tensor
) -> Tensor | None:
    """(rows, C) bool, true where a column is a second copy of the row's partner."""
    if row_key_RK is None or column_key_CK is None:
        return None
    row_key_rK = row_key_RK[block]
    same_rC = torch.zeros(len(row_key_rK), len(column_key_CK), dtype=torch.bool, device=row_key_rK.device)
    for k in range(row_key_rK.shape[1]):
        known_r1 = row_key_rK[:, k, None] != UNKNOWN_KEY
        same_rC |= known_r1 & (row_key_rK[:, k, None] == column_key_CK[None, :, k])
    same_rC.scatter_(1, target_r[:, None], False)
    return same_rC


def _statistics(score_rC: Tensor, target_r: Tensor, masked_rC: Tensor | None, temperature: float) -> Tensor:
    """The six sums of `SoftmaxStatistics`, in its order. A tie counts against the row."""
    positive_r = score_rC.gather(1, target_r[:, None])
    rival_rC = score_rC >= positive_r
    n_masked = score_rC.new_zeros(())
    negative_sum = score_rC.sum() - positive_r.sum()
    if masked_rC is not None:
        rival_rC &= ~masked_rC
        n_masked = masked_rC.sum().to(score_rC.dtype)
        negative_sum = negative_sum - (score_rC * masked_rC).sum()
    rank_r = rival_rC.sum(1).clamp_min(1).float()
    return torch.stack(
        [
            (rank_r == 1).float().sum(),
            (1.0 / rank_r).sum(),
            positive_r.sum() * temperature,
            negative_sum * temperature,
            score_rC.new_tensor(float(score_rC.numel() - len(target_r))) - n_masked,
            n_masked,
        ]
    )


def dense_contrastive_loss(
    query_ND: Tensor,
    positive_ND: Tensor,
    negative_MD: Tensor,
    query_key_NK: Tensor | None,
    negative_key_MK: Tensor | None,
    *,
    temperature: float,
    passage_to_query: bool,
) -> Tensor:
    """The plain twin: the same loss of the whole batch in one process, dense and differentiable by autograd."""
    passage_CD = torch.cat([positive_ND, negative_MD]).float()
    query_ND = query_ND.float()
    target_N = torch.arange(len(query_ND), device=query_ND.device)
    column_key_CK = None
    if query_key_NK is not None and negative_key_MK is not None:
        column_key_CK = torch.cat([query_key_NK, negative_key_MK])
    loss = _dense_direction(query_ND, passage_CD, target_N, query_key_NK, column_key_CK, temperature)
    if passage_to_query:
        loss = loss + _dense_direction(positive_ND.float(), query_ND, target_N, query_key_NK, query_key_NK, temperature)
    return loss


def _dense_direction(
    row_ND: Tensor,
    column_CD: Tensor,
    target_N: Tensor,
    row_key_NK: Tensor | None,
    column_key_CK: Tensor | None,
    temperature: float,
) -> Tensor:
    score_NC = row_ND @ column_CD.T / temperature
    if row_key_NK is not None and column_key_CK is not None:
        same_NCK = row_key_NK[:, None, :] == column_key_CK[None, :, :]
        same_NC = (same_NCK & (row_key_NK >= 0)[:, None, :]).any(-1)
        same_NC[target_N, target_N] = False
        score_NC = score_NC.masked_fill(same_NC, float("-inf"))
    return torch.nn.functional.cross_entropy(score_NC, target_N)
