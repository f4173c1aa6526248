"""The chunks a step is computed in: how many, how many tokens, how long the texts in them.

For memory every text has its longest length, for time its mean. L tokens of a text, T tokens of a chunk.
"""

import math
from dataclasses import dataclass

from largede.config.recipe import Recipe


@dataclass(frozen=True)
class ChunkShape:
    """`rows` texts of `length` tokens in the fullest chunk; `count` such chunks hold all texts of one side."""

    rows: int
    length: float
    count: int
    padded: bool

    @property
    def tokens(self) -> float:
        return self.rows * self.length


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


def sides_of_rank(recipe: Recipe, ranks: int, packed: bool, query_tokens: float, passage_tokens: float) -> list[SideChunks]:
    """Queries and passages of the rank that holds most rows."""
    queries = math.ceil(recipe.batch.queries / ranks)
    passages = queries * (1 + recipe.data.hard_negatives)
    return [_side(recipe, n, length, packed) for n, length in ((queries, query_tokens), (passages, passage_tokens))]


def _side(recipe: Recipe, texts: int, length: float, packed: bool) -> SideChunks:
    batch = recipe.batch
    with_gradient = chunk_shape(texts, length, batch.chunk_tokens, packed)
    first = with_gradient
    if batch.gradient_cache and recipe.model.dropout == 0 and batch.no_grad_chunk_tokens is not None:
        first = chunk_shape(texts, length, batch.no_grad_chunk_tokens, packed)
    return SideChunks(texts, length, first, with_gradient)


def chunk_shape(texts: int, length: float, budget_tokens: int, packed: bool) -> ChunkShape:
    rows = min(texts, max(1, int(budget_tokens // length)))
    return ChunkShape(rows, length, math.ceil(texts / rows), padded=not packed)
