"""In-batch sampled softmax over the whole contrastive batch, and its gradient, in row blocks.

Shapes: R local queries, N queries of the whole batch, C passages of the whole batch (N positives, then hard negatives),
D embedding width, K identity keys of one item, A known answers of one query, r rows of one block.

Source: Ni et al. 2021, "Large Dual Encoders Are Generalizable Retrievers", equation 1 and section 2; the two
directions are summed and the direction passage to query leaves hard negatives out, as in t5x_retrieval.

Both directions read the same scores, query against passage: the softmax of a row finds the passage of a query, that of
a column the query of a passage. A rank computes the rows of its own queries. A first pass over blocks of rows adds up
exponentials by row and by column; the caller completes the columns' sums over ranks; a second pass gives the gradient.
So queries need not be gathered, their gradient is complete where it is computed, and beside representations and their
gradients memory is a few times `block_scores` numbers, whatever the batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from largede.config.recipe import LossConfig

UNKNOWN_KEY = -1
"""Key of something without identity, such as a passage without id: it equals nothing, not even itself."""

PASSAGE_KEYS = 2
"""The first keys of an item say which passage it is (text, id); the rest, which query."""


@dataclass(frozen=True)
class Keys:
    """What tells copies of a right answer from negatives, int64; UNKNOWN_KEY matches nothing.

    `identity_XK`: (passage text, passage id, query text) of each item; items that share one are the same.
    `answer_XA`: texts or ids of further passages known to answer an item's query.
    """

    identity_XK: Tensor
    answer_XA: Tensor | None = None

    def of(self, rows: slice) -> "Keys":
        return Keys(self.identity_XK[rows], None if self.answer_XA is None else self.answer_XA[rows])


@dataclass(frozen=True)
class Similarities:
    """What one rank holds of the similarity matrix: its own queries, all passages, and who is whose.

    Embeddings may be of any floating type; scores are computed in float32. `target_R` (int64) is the column of each
    query's own passage, below `batch_queries` (N). Without keys, every pair counts. `partner_N` holds the similarity of
    every right pair of the batch; only a margin asks for it.
    """

    query_RD: Tensor
    passage_CD: Tensor
    target_R: Tensor
    batch_queries: int
    query_keys: Keys | None = None
    passage_keys: Keys | None = None
    partner_N: Tensor | None = None


@dataclass(frozen=True)
class SoftmaxStatistics:
    """Sums over the local queries, to be added over ranks: what a person watches beside the loss."""

    correct: Tensor
    reciprocal_rank: Tensor
    positive_similarity: Tensor
    negative_similarity: Tensor
    negatives: Tensor
    masked: Tensor


@dataclass(frozen=True)
class ContrastiveGradient:
    """The local part of the loss (scalar; the sum over ranks is the mean over the batch) and its gradients, float32.

    `d_query_RD` is complete. `d_passage_CD` is what the local queries say, to be summed over ranks.
    """

    loss: Tensor
    d_query_RD: Tensor
    d_passage_CD: Tensor
    statistics: SoftmaxStatistics


class ExponentialSums:
    """The sum of exp(score) of each row or column, as its largest score (float32) and sum of exp(score - largest).

    Keeping the two apart is more exact than their logarithm: at temperature 0.01 scores reach 100, where float32 has
    steps of 8e-6, while score - largest is exact near zero. Sums over blocks are float64.
    """

    def __init__(self, largest_X: Tensor, sum_X: Tensor) -> None:
        self.largest_X = largest_X
        self.sum_X = sum_X

    @classmethod
    def none(cls, count: int, device: torch.device) -> "ExponentialSums":
        lowest = torch.finfo(torch.float32).min
        return cls(torch.full((count,), lowest, device=device), torch.zeros(count, dtype=torch.float64, device=device))

    def part(self, which: slice) -> "ExponentialSums":
        return ExponentialSums(self.largest_X[which], self.sum_X[which])

    def add_block(self, score_rC: Tensor, dim: int) -> None:
        """Add the scores of a block, summed over `dim`, in place."""
        # Where everything is left out the largest score is -infinity; its sum shall be 0, not NaN.
        largest_X = torch.maximum(score_rC.amax(dim), self.largest_X)
        block_X = (score_rC - largest_X.unsqueeze(dim)).exp_().sum(dim)
        self.raise_to(largest_X)
        self.sum_X += block_X

    def raise_to(self, largest_X: Tensor) -> None:
        """Count from scores that are at least as large, in place."""
        self.sum_X *= (self.largest_X - largest_X).double().exp()
        self.largest_X.copy_(largest_X)

    def logarithm(self) -> Tensor:
        """log of the sum of exp(score), float64."""
        return self.sum_X.log() + self.largest_X

    def gradient(self, score_rC: Tensor, dim: int, scale: float) -> Tensor:
        """scale * exp(score) / sum, in a new tensor."""
        difference = score_rC - self.largest_X.unsqueeze(dim)
        return difference.exp_().mul_((scale / self.sum_X).float().unsqueeze(dim))


def contrastive_gradient(
    similarities: Similarities,
    config: LossConfig,
    complete_over_ranks: Callable[[ExponentialSums], None] = lambda columns: None,
) -> ContrastiveGradient:
    """Loss of the local queries and of their passages, with closed-form gradients.

    Left out of a softmax are pairs that are another copy of the right answer, or known to be right too (by `Keys`),
    and, with `config.margin`, those more similar than the right pair by more than that: they are no negatives. The
    right pair itself always stays, and the mask carries no gradient.

    Args:
        complete_over_ranks: turns the local sums of the N columns into those of all ranks, in place.
    """
    both = config.passage_to_query
    blocks = ScoreBlocks(similarities, config)
    N, target_R = similarities.batch_queries, similarities.target_R
    # Whatever outlives a block is allocated here: a small tensor left between large ones would fragment CPU memory.
    rows = ExponentialSums.none(len(target_R), target_R.device)
    columns = ExponentialSums.none(N, target_R.device)
    totals = torch.zeros(6, dtype=torch.float64, device=target_R.device)
    d_query_RD = torch.empty_like(similarities.query_RD, dtype=torch.float32)
    d_passage_CD = torch.zeros_like(similarities.passage_CD, dtype=torch.float32)

    for block in blocks:
        rows.part(block.rows).add_block(block.row_score_rC, 1)
        if both:
            columns.add_block(block.column_score_rN, 0)
        totals += block.statistics(config.temperature)
    statistics = SoftmaxStatistics(*totals.unbind())
    loss = rows.logarithm().sum() - statistics.positive_similarity / config.temperature
    if both:
        complete_over_ranks(columns)
        loss += columns.logarithm()[target_R].sum() - statistics.positive_similarity / config.temperature

    scale = 1.0 / (config.temperature * N)
    for block in blocks:
        d_score_rC = rows.part(block.rows).gradient(block.row_score_rC, 1, scale)
        if both:
            d_score_rC[:, :N] += columns.gradient(block.column_score_rN, 0, scale)
        own = torch.arange(len(d_score_rC), device=target_R.device)
        d_score_rC[own, target_R[block.rows]] -= scale * (1 + both)
        torch.mm(d_score_rC, blocks.passage_CD, out=d_query_RD[block.rows])
        d_passage_CD.addmm_(d_score_rC.T, similarities.query_RD[block.rows].float())
    return ContrastiveGradient((loss / N).float(), d_query_RD, d_passage_CD, statistics)


@dataclass(frozen=True)
class ScoreBlock:
    """Scores of some rows; what is left out of the softmax of its row, or of its column, is -infinity there.

    `rank_r` is the place of each row's partner, before a margin takes its rivals away; `score_sum` and `left_out` are
    the sum of the row scores that are kept, and the number of those that are not.
    """

    rows: slice
    positive_r: Tensor
    rank_r: Tensor
    row_score_rC: Tensor
    column_score_rN: Tensor
    score_sum: Tensor
    left_out: Tensor

    def statistics(self, temperature: float) -> Tensor:
        """The six sums of `SoftmaxStatistics`, in its order, float64. A tie counts against the row."""
        rank_r = self.rank_r.clamp_min(1).double()
        positive_sum = self.positive_r.sum(dtype=torch.float64)
        return torch.stack(
            [
                (rank_r == 1).double().sum(),
                (1.0 / rank_r).sum(),
                positive_sum * temperature,
                (self.score_sum - positive_sum) * temperature,
                self.row_score_rC.numel() - self.left_out - len(self.positive_r),
                self.left_out,
            ]
        )


class ScoreBlocks:
    """The scores of the local queries, a block of rows at a time; walking it again gives the same numbers."""

    def __init__(self, similarities: Similarities, config: LossConfig) -> None:
        self.given = similarities
        self.passage_CD = similarities.passage_CD.float()
        self.passage_sum_D = self.passage_CD.sum(0, dtype=torch.float64)
        self.config = config
        self.known = None
        if similarities.query_keys is not None and similarities.passage_keys is not None:
            self.known = KnownRight(similarities.query_keys, similarities.passage_keys.identity_XK)
        self.only_block: ScoreBlock | None = None

    def __iter__(self) -> Iterator[ScoreBlock]:
        R = len(self.given.query_RD)
        rows_per_block = max(1, self.config.block_scores // len(self.passage_CD))
        if rows_per_block >= R:  # all rows fit: no need to compute their scores twice
            self.only_block = self.only_block or self.compute(slice(0, R))
            yield self.only_block
            return
        for start in range(0, R, rows_per_block):
            yield self.compute(slice(start, min(start + rows_per_block, R)))

    def compute(self, rows: slice) -> ScoreBlock:
        target_r1 = self.given.target_R[rows, None]
        query_rD = self.given.query_RD[rows].float() / self.config.temperature
        score_rC = query_rD @ self.passage_CD.T
        positive_r1 = score_rC.gather(1, target_r1)
        score_sum = query_rD.sum(0, dtype=torch.float64) @ self.passage_sum_D
        left_out = score_sum.new_zeros(())
        if self.known is not None:
            places = self.known.places(rows, target_r1)
            left_out += len(places[0])
            score_sum -= score_rC[places].sum()
            score_rC[places] = float("-inf")
        column_score_rN = score_rC[:, : self.given.batch_queries]
        rank_r = (score_rC >= positive_r1).sum(1, dtype=torch.int32)  # by default the block is turned into int64 first
        if self.config.margin is not None:
            column_score_rN = self.without_suspects_of_columns(score_rC, target_r1, positive_r1)
            suspect_rC = score_rC > positive_r1 + self.config.margin / self.config.temperature
            left_out += suspect_rC.sum()
            score_sum -= score_rC[suspect_rC].sum()
            score_rC.masked_fill_(suspect_rC, float("-inf"))
        return ScoreBlock(rows, positive_r1.squeeze(1), rank_r, score_rC, column_score_rN, score_sum, left_out)

    def without_suspects_of_columns(self, score_rC: Tensor, target_r1: Tensor, positive_r1: Tensor) -> Tensor:
        """The scores of the columns (r, N), without those that beat their passage's own query by the margin."""
        assert self.config.margin is not None and self.given.partner_N is not None
        limit_N = (self.given.partner_N.float() + self.config.margin) / self.config.temperature
        score_rN = score_rC[:, : len(limit_N)]
        # With a margin near zero, rounding could take the right pair for a suspect.
        return score_rN.masked_fill(score_rN > limit_N, float("-inf")).scatter_(1, target_r1, positive_r1)


class KnownRight:
    """Where a passage is a query's own again, its query's again, or a known answer to it.

    Such places are few, so they are looked up in sorted keys instead of comparing every query with every passage.
    """

    def __init__(self, query_keys: Keys, passage_CK: Tensor) -> None:
        self.query_keys = query_keys
        self.sorted_K = [passage_CK[:, k].contiguous().sort() for k in range(passage_CK.shape[1])]

    def places(self, rows: slice, target_r1: Tensor) -> tuple[Tensor, Tensor]:
        """(row within `rows`, column) of every such place once, the target's own left out. Waits for the device."""
        identity_rK, answer_RA = self.query_keys.identity_XK[rows], self.query_keys.answer_XA
        found = [self._equal(identity_rK[:, k], k) for k in range(identity_rK.shape[1])]
        if answer_RA is not None:
            found += [self._equal(answer_r, k) for answer_r in answer_RA[rows].unbind(1) for k in range(PASSAGE_KEYS)]
        place = torch.unique(torch.cat(found))
        columns = len(self.sorted_K[0][0])
        row, column = place // columns, place % columns
        is_copy = column != target_r1.squeeze(1)[row]
        return row[is_copy], column[is_copy]

    def _equal(self, key_r: Tensor, k: int) -> Tensor:
        """row * C + column of each place where the k-th key of a passage is the row's key."""
        key_C, column_C = self.sorted_K[k]
        key_r = key_r.contiguous()
        first_r = torch.searchsorted(key_C, key_r)
        count_r = torch.searchsorted(key_C, key_r, right=True) - first_r
        count_r = count_r.masked_fill(key_r == UNKNOWN_KEY, 0)
        row = torch.repeat_interleave(torch.arange(len(key_r), device=key_r.device), count_r)
        within = torch.arange(len(row), device=key_r.device) - (count_r.cumsum(0) - count_r)[row]
        return row * len(key_C) + column_C[first_r[row] + within]


def dense_contrastive_loss(
    query_ND: Tensor,
    positive_ND: Tensor,
    negative_MD: Tensor,
    query_keys: Keys | None,
    negative_keys: Keys | None,
    *,
    temperature: float,
    passage_to_query: bool,
    margin: float | None = None,
) -> Tensor:
    """The plain twin: the same loss of the whole batch in one process, dense and differentiable by autograd."""
    N, M = len(query_ND), len(negative_MD)
    passage_CD = torch.cat([positive_ND, negative_MD]).float()
    query_ND = query_ND.float()
    same_NC = torch.zeros(N, N + M, dtype=torch.bool, device=query_ND.device)
    same_NN = same_NC[:, :N].clone()
    if query_keys is not None and negative_keys is not None:
        identity_CK = torch.cat([query_keys.identity_XK, negative_keys.identity_XK])
        answers_NC = _answers(query_keys, identity_CK)
        same_NC = _shares_key(query_keys.identity_XK, identity_CK) | answers_NC
        same_NN = _shares_key(query_keys.identity_XK, query_keys.identity_XK) | answers_NC[:, :N].T
    loss = _dense_direction(query_ND, passage_CD, same_NC, temperature, margin)
    if passage_to_query:
        loss = loss + _dense_direction(positive_ND.float(), query_ND, same_NN, temperature, margin)
    return loss


def _shares_key(one_XK: Tensor, other_YK: Tensor) -> Tensor:
    """(X, Y) bool: some known key is equal at the same place."""
    return ((one_XK[:, None, :] == other_YK[None, :, :]) & (one_XK != UNKNOWN_KEY)[:, None, :]).any(-1)


def _answers(query: Keys, passage_YK: Tensor) -> Tensor:
    """(X, Y) bool: the passage is among the query's known answers."""
    if query.answer_XA is None:
        return torch.zeros(len(query.identity_XK), len(passage_YK), dtype=torch.bool, device=passage_YK.device)
    known_XA = query.answer_XA.masked_fill(query.answer_XA == UNKNOWN_KEY, UNKNOWN_KEY - 1)
    return (known_XA[:, :, None, None] == passage_YK[None, None, :, :PASSAGE_KEYS]).any(-1).any(1)


def _dense_direction(
    row_ND: Tensor, column_CD: Tensor, same_NC: Tensor, temperature: float, margin: float | None
) -> Tensor:
    similarity_NC = row_ND @ column_CD.T
    if margin is not None:
        same_NC = same_NC | (similarity_NC > similarity_NC.diagonal()[:, None] + margin)
    same_NC = same_NC & ~torch.eye(*same_NC.shape, dtype=torch.bool, device=same_NC.device)
    score_NC = (similarity_NC / temperature).masked_fill(same_NC, float("-inf"))
    return torch.nn.functional.cross_entropy(score_NC, torch.arange(len(row_ND), device=row_ND.device))
