"""Token sequences of any length, and the chunks of a fixed token budget they are computed in.

A chunk is padded or packed. Padded (training and encoding): sequences are sorted by length, so a chunk holds near-equal
lengths and little padding, and the longest come first, so that a chunk that does not fit in memory fails at once.
Packed (training): sequences are laid end to end in chunks of a few fixed sizes, so nothing but a short tail is padding.

Shapes: B rows of a chunk, L tokens of its longest, T tokens of a packed chunk.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Self

import numpy as np
import torch
from torch import Tensor

from largede.streams.tiles import TILE_TOKENS, packed_tokens

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
        tokens = np.fromiter(chain.from_iterable(sequences), dtype=np.int32, count=int(offsets[-1]))
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
class Chunk(ABC):
    """Some rows of one side in the form the encoder reads; `rows` (B,) says which ones."""

    rows: Tensor

    @property
    @abstractmethod
    def inputs(self) -> tuple[Tensor, ...]:
        """What the encoder is called with."""

    @property
    def computed_tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return self.inputs[0].numel()

    @property
    def is_filler(self) -> bool:
        """True for a chunk without rows, computed only so that all ranks make the same calls."""
        return len(self.rows) == 0

    def to(self, device: torch.device) -> Self:
        return type(self)(*(getattr(self, item.name).to(device) for item in fields(self)))


@dataclass(frozen=True)
class PaddedChunk(Chunk):
    """Rows as a rectangle: `token_BL` (B, L), `mask_BL` 1 at real tokens."""

    token_BL: Tensor
    mask_BL: Tensor

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.token_BL, self.mask_BL


@dataclass(frozen=True)
class PackedChunk(Chunk):
    """Rows end to end: `token_T` (T,), the document each token is of `document_T` (T,), and `length_B` (B,).

    Document i is row i of the chunk. What is left of T is the tail; its tokens count as further documents, one per
    tile, so that their attention costs no more than theirs alone.
    """

    token_T: Tensor
    document_T: Tensor
    length_B: Tensor

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.token_T, self.document_T, self.length_B


def make_chunks(sequences: TokenRows, budget_tokens: int, *, at_least: int = 0) -> list[PaddedChunk]:
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


def pad_rows(sequences: TokenRows, rows: np.ndarray) -> PaddedChunk:
    lengths = sequences.lengths[rows]
    column_L = np.arange(max(1, int(lengths.max(initial=0))))
    mask_BL = column_L[None, :] < lengths[:, None]
    token_BL = np.full(mask_BL.shape, PAD, dtype=np.int64)
    source = sequences.offsets[rows][:, None] + column_L[None, :]
    token_BL[mask_BL] = sequences.tokens[source[mask_BL]]
    return PaddedChunk(torch.from_numpy(rows), torch.from_numpy(token_BL), torch.from_numpy(mask_BL.astype(np.int64)))


def filler_chunk() -> PaddedChunk:
    one = torch.ones(1, 1, dtype=torch.int64)
    return PaddedChunk(torch.empty(0, dtype=torch.int64), one, one)


def make_packed_chunks(sequences: TokenRows, budget_tokens: int, *, at_least: int = 0) -> list[PackedChunk]:
    """Cover every row once by packed chunks of at most `budget_tokens` real tokens; fillers as in `make_chunks`."""
    chunks = [pack_rows(sequences, rows, budget_tokens) for rows in plan_packs(sequences.lengths, budget_tokens)]
    return chunks + [packed_filler_chunk(budget_tokens) for _ in range(at_least - len(chunks))]


def plan_packs(lengths: np.ndarray, budget_tokens: int) -> list[np.ndarray]:
    """Row numbers of each packed chunk: longest first, each into the first chunk that still has room for it."""
    assert int(lengths.max(initial=0)) <= budget_tokens, "the recipe keeps budgets above the longest sequence"
    packs: list[list[int]] = []
    # Room in each chunk begun, and in the one after them.
    room = np.full(len(lengths), budget_tokens)
    for row in np.argsort(-lengths, kind="stable").tolist():
        pack = int(np.argmax(room[: len(packs) + 1] >= lengths[row]))
        if pack == len(packs):
            packs.append([])
        packs[pack].append(row)
        room[pack] -= lengths[row]
    return [np.array(pack, dtype=np.int64) for pack in packs]


def pack_rows(sequences: TokenRows, rows: np.ndarray, budget_tokens: int) -> PackedChunk:
    length_B = sequences.lengths[rows]
    used = int(length_B.sum())
    shape = packed_tokens(used, budget_tokens)
    token_T = np.full(shape, PAD, dtype=np.int64)
    token_T[:used] = np.concatenate([sequences.tokens[sequences.offsets[i] : sequences.offsets[i + 1]] for i in rows])
    document_T = len(rows) + np.arange(shape) // TILE_TOKENS
    document_T[:used] = np.repeat(np.arange(len(rows)), length_B)
    return PackedChunk(*(torch.from_numpy(a) for a in (rows, token_T, document_T, length_B)))


def packed_filler_chunk(budget_tokens: int) -> PackedChunk:
    one = pack_rows(TokenRows.of([[1]]), np.zeros(1, dtype=np.int64), budget_tokens)
    return replace(one, rows=one.rows[:0])
