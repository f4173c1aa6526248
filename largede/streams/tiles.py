"""The sizes of packed chunks. Apart from the chunks themselves, because `largede plan` asks for them without torch."""

import math

TILE_TOKENS = 128
"""Tokens along one side of a tile of packed attention, which skips or computes whole tiles."""


def packed_tokens(used: int, budget_tokens: int) -> int:
    """Tokens of the chunk that holds `used`: the budget in whole tiles, halved while that is enough.

    Few sizes, because each is compiled once; small ones, because a small batch should not pay for an empty budget.
    """
    tiles = math.ceil(budget_tokens / TILE_TOKENS)
    while tiles > 1 and math.ceil(tiles / 2) * TILE_TOKENS >= used:
        tiles = math.ceil(tiles / 2)
    return tiles * TILE_TOKENS
