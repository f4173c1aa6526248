"""The chunks a step is computed in: how many, how many tokens, how long the texts in them.

For memory every text has its longest length, for time its mean. L tokens of a text, T tokens of a chunk.
"""

import math
from dataclasses import dataclass
from typing import Literal

from largede.config.recipe import Recipe
from largede.streams.tiles import packed_tokens
from largede.training.plan.machine import Machine

Kernel = Literal["math", "efficient", "flex", "dense"]
"""How attention is computed: padded on a CPU or a GPU, packed on a GPU or (a twin for small runs) a CPU."""


def kernel_of(recipe: Recipe, machine: Machine) -> Kernel:
    if machine.device == "cpu":
        return "dense" if recipe.engine.attention == "packed" else "math"
    return "efficient" if recipe.engine.attention == "padded" else "flex"


@dataclass(frozen=True)
class ChunkShape:
    """The fullest chunk of one side: its computed tokens, how far a token's attention reaches, and how many such
    chunks hold all texts of the side."""

    tokens: float
    length: float
    count: int


@dataclass(frozen=True)
class SideChunks:
    """One side of a rank's batch: its texts, and its chunks in the pass without and the pass with gradients."""

    texts: int
    length: float
    first_pass: ChunkShape
    with_gradient: ChunkShape

    @property
    def tokens(self) -> float:
        return self.texts * self.length


def sides_of_rank(
    recipe: Recipe, ranks: int, kernel: Kernel, query_tokens: float, passage_tokens: float
) -> tuple[SideChunks, SideChunks]:
    """Queries and passages of the rank that holds most rows."""
    queries = math.ceil(recipe.batch.queries / ranks)
    passages = queries * (1 + recipe.data.hard_negatives)
    return _side(recipe, queries, query_tokens, kernel), _side(recipe, passages, passage_tokens, kernel)


def _side(recipe: Recipe, texts: int, length: float, kernel: Kernel) -> SideChunks:
    batch = recipe.batch
    with_gradient = chunk_shape(texts, length, batch.chunk_tokens, kernel)
    first = with_gradient
    if batch.gradient_cache and recipe.model.dropout == 0 and batch.no_grad_chunk_tokens is not None:
        first = chunk_shape(texts, length, batch.no_grad_chunk_tokens, kernel)
    return SideChunks(texts, length, first, with_gradient)


def chunk_shape(texts: int, length: float, budget_tokens: int, kernel: Kernel) -> ChunkShape:
    if kernel in ("math", "efficient"):
        rows = min(texts, max(1, int(budget_tokens // length)))
        return ChunkShape(rows * length, length, math.ceil(texts / rows))
    tokens = packed_tokens(math.ceil(min(budget_tokens, texts * length)), budget_tokens)
    # Packed without a GPU, every token is scored against the whole chunk.
    return ChunkShape(tokens, tokens if kernel == "dense" else length, math.ceil(texts * length / budget_tokens))
