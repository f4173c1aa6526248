"""Made-up contrastive batches and small models for the tests of training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from largede.config.batch import BatchPlan
from largede.config.load import with_settings
from largede.config.recipe import Recipe
from largede.files import write_json
from largede.models.build import build_dual_encoder
from largede.models.dual_encoder import DualEncoder
from largede.objectives.contrastive import UNKNOWN_KEY, Keys, dense_contrastive_loss
from largede.streams.chunks import TokenRows, make_chunks
from largede.streams.tokenise import RankBatch


def made_rows(generator: np.random.Generator, rows: int, longest: int) -> TokenRows:
    return TokenRows.of([generator.integers(3, 500, generator.integers(2, longest + 1)).tolist() for _ in range(rows)])


def take(rows: TokenRows, which: range | list[int]) -> TokenRows:
    return TokenRows.of([rows.tokens[rows.offsets[i] : rows.offsets[i + 1]].tolist() for i in which])


class MadeBatch:
    """A global batch of B pairs with a ragged number of hard negatives, a repeated passage and a repeated query."""

    def __init__(self, pairs: int, hard_negatives: int, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.queries = made_rows(generator, pairs, 9)
        self.positives = made_rows(generator, pairs, 21)
        self.negative_counts = generator.integers(0, hard_negatives + 1, pairs)
        self.negatives = made_rows(generator, int(self.negative_counts.sum()), 21)
        self.mark_right_answers(pairs)

    def mark_right_answers(self, pairs: int) -> None:
        """Keys (see `largede.streams.tokenise.RankBatch`) with right answers among the negatives, to be masked.

        Copies of a passage, of a query, of a positive among the hard negatives; known answers of two queries.
        """
        self.query_keys = np.arange(3 * pairs).reshape(pairs, 3)
        self.query_keys[1, 0] = self.query_keys[0, 0]
        self.query_keys[pairs - 1, 2] = self.query_keys[2, 2]
        self.query_keys[4:7, 1] = UNKNOWN_KEY
        self.answer_keys = np.full((pairs, 2), UNKNOWN_KEY)
        self.answer_keys[5, 0] = self.query_keys[7, 0]
        self.answer_keys[8] = (self.query_keys[0, 1], 10_001)
        self.negative_keys = np.full((len(self.negatives), 3), UNKNOWN_KEY)
        self.negative_keys[:, 0] = 10_000 + np.arange(len(self.negatives))
        self.negative_keys[:1, 0] = self.query_keys[3, 0]

    def of_rank(self, rank: int, world: int) -> RankBatch:
        rows = BatchPlan(len(self.queries), world).rows(rank)
        first = np.concatenate([[0], np.cumsum(self.negative_counts)])
        negative_rows = range(int(first[rows.start]), int(first[rows.stop]))
        return RankBatch(
            step=0,
            queries=take(self.queries, rows),
            passages=TokenRows.joined(take(self.positives, rows), take(self.negatives, negative_rows)),
            query_keys=self.query_keys[rows.start : rows.stop],
            answer_keys=self.known_answers(rows),
            negative_keys=self.negative_keys[negative_rows.start : negative_rows.stop],
            sample_names=tuple(f"pair-{i}" for i in rows),
            cut_texts=0,
        )

    def known_answers(self, rows: range) -> np.ndarray:
        """Only as many columns as these rows need, so ranks differ in their number, as with the real tokeniser."""
        keys = self.answer_keys[rows.start : rows.stop]
        return keys[:, : (keys != UNKNOWN_KEY).sum(1).max()]

    def plain_loss(self, model: DualEncoder, recipe: Recipe) -> Tensor:
        """The twin: everything in one graph of one process."""
        query, positive = embed_all(model, "query", self.queries), embed_all(model, "passage", self.positives)
        negative = positive[:0]
        if len(self.negatives):
            negative = embed_all(model, "passage", self.negatives)
        keys: Any = (
            Keys(torch.from_numpy(self.query_keys), torch.from_numpy(self.answer_keys)),
            Keys(torch.from_numpy(self.negative_keys)),
        )
        return dense_contrastive_loss(
            query,
            positive,
            negative,
            *(keys if recipe.loss.mask_duplicates else (None, None)),
            temperature=recipe.loss.temperature,
            passage_to_query=recipe.loss.passage_to_query,
            margin=recipe.loss.margin,
        )


def embed_all(model: DualEncoder, side: Any, rows: TokenRows) -> Tensor:
    [chunk] = make_chunks(rows, 10**9)
    embedding = model(side, chunk.token_BL, chunk.mask_BL)
    return torch.empty_like(embedding).index_copy(0, chunk.rows, embedding)


def plain_gradients(recipe: Recipe, batch: MadeBatch) -> tuple[float, dict[str, Tensor]]:
    model = build_dual_encoder(recipe.model)
    loss = batch.plain_loss(model, recipe)
    loss.backward()
    return float(loss), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def small_recipe(folder: Path, stage: int = 3, **dotted: Any) -> Recipe:
    """The smoke model with a DeepSpeed file that really shards: nothing persistent, several sub-groups."""
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0, "sub_group_size": 60_000}
    zero |= {"overlap_comm": False, "reduce_bucket_size": 100_000, "stage3_max_live_parameters": 0}
    path = folder / f"zero{stage}.json"
    write_json(path, {"zero_optimization": zero})  # ranks write it side by side: whole or not at all
    settings = {
        "model__backbone": "smoke",
        "batch__queries": 14,
        "batch__chunk_tokens": 60,
        "data__max_query_tokens": 16,
        "data__max_passage_tokens": 24,
        "data__lanes": 1,
        "engine__deepspeed": str(path),
        "optimizer__warmup_steps": 0,
    }
    return with_settings(Recipe(), **{**settings, **dotted})
