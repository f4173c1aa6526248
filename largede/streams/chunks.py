"""Token sequences of any length, and the chunks of a fixed token budget they are computed in.

Training and encoding share this: sequences are sorted by length, so a chunk holds near-equal lengths and little
padding, and the longest come first, so that a chunk that does not fit in memory fails at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PAD = 0


@dataclass(frozen=True)
class TokenRows:
    """Sequences of token ids laid end to end; row i is tokens[offsets[i]:offsets[i + 1]]."""

    tokens: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> "TokenRows":
        offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
        np.cumsum([len(s) for s in sequences], out=offsets[1:])
        tokens = np.fromiter((t for s in sequences for t in s), dtype=np.int32, count=int(offsets[-1]))
        return cls(tokens, offsets)

    @classmethod
    def joined(cls, first: "TokenRows", second: "TokenRows") -> "TokenRows":
        return cls(
            np.concatenate([first.tokens, second.tokens]),
            np.concatenate([first.offsets, second.offsets[1:] + first.offsets[-1]]),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Chunk:
    """Some rows as a padded rectangle: `rows` (B,) says which, `token_BL` and `mask_BL` hold them."""

    rows: Tensor
    token_BL: Tensor
    mask_BL: Tensor

    @property
    def is_filler(self) -> bool:
        """True for a chunk without rows, computed only so that all ranks make the same calls."""
        return len(self.rows) == 0

    def to(self, device: torch.device) -> "Chunk":
        return Chunk(self.rows.to(device), self.token_BL.to(device), self.mask_BL.to(device))


def make_chunks(sequences: TokenRows, budget_tokens: int, *, at_least: int = 0) -> list[Chunk]:
    """Cover every row once by chunks of at most `budget_tokens` tokens, padding included, longest rows first.

    `at_least` appends filler chunks up to that number.
    """
    chunks = [pad_rows(sequences, rows) for rows in plan_chunks(sequences.lengths, budget_tokens)]
    return chunks + [filler_chunk() for _ in range(at_least - len(chunks))]


def plan_chunks(lengths: np.ndarray, budget_tokens: int) -> list[np.ndarray]:
    """Row numbers of each chunk: stable sort by falling length, then as many rows as the first one's length allows."""
    order = np.argsort(-lengths, kind="stable")
    plan = []
    start = 0
    while start < len(order):
        rows = max(1, budget_tokens // max(1, int(lengths[order[start]])))
        plan.append(order[start : start + rows])
        start += rows
    return plan


def pad_rows(sequences: TokenRows, rows: np.ndarray) -> Chunk:
    lengths = sequences.lengths[rows]
    column_L = np.arange(max(1, int(lengths.max(initial=0))))
    mask_BL = column_L[None, :] < lengths[:, None]
    token_BL = np.full(mask_BL.shape, PAD, dtype=np.int64)
    source = sequences.offsets[rows][:, None] + column_L[None, :]
    token_BL[mask_BL] = sequences.tokens[source[mask_BL]]
    return Chunk(torch.from_numpy(rows), torch.from_numpy(token_BL), torch.from_numpy(mask_BL.astype(np.int64)))


def filler_chunk() -> Chunk:
    one = torch.ones(1, 1, dtype=torch.int64)
    return Chunk(torch.empty(0, dtype=torch.int64), one, one)
