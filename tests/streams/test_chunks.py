"""Chunks: every row once, budgets kept, fillers, the few sizes of packed ones, and what a packed one holds."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from largede.streams import chunks as chunks_module
from largede.streams.chunks import (
    TILE_TOKENS,
    Chunk,
    Chunking,
    TokenRows,
    make_chunks,
    make_packed_chunks,
    packed_tokens,
    plan_packs,
)

LENGTHS = st.lists(st.integers(0, 60), max_size=40)
BUDGETS = st.integers(60, 2000)
MAKERS = pytest.mark.parametrize("make", [make_chunks, make_packed_chunks])


def rows_of(lengths: list[int]) -> TokenRows:
    return TokenRows.of([[100 * i + j for j in range(length)] for i, length in enumerate(lengths)])


def whole_tiles(tokens: int) -> int:
    return -(-tokens // TILE_TOKENS) * TILE_TOKENS


def tokens_of(chunk: Chunk) -> list[list[int]]:
    """The real tokens of each row of a chunk, whichever kind it is."""
    if len(chunk.inputs) == 2:
        token_BL, mask_BL = chunk.inputs
        return [token[mask.bool()].tolist() for token, mask in zip(token_BL, mask_BL, strict=True)]
    token_T, document_T, length_B = chunk.inputs
    return [token_T[document_T == i].tolist() for i in range(len(length_B))]


@MAKERS
@given(lengths=LENGTHS, budget=BUDGETS)
def test_every_row_is_in_one_chunk_whole_and_no_chunk_exceeds_its_budget(make, lengths, budget) -> None:  # type: ignore[no-untyped-def]
    sequences = rows_of(lengths)
    chunks = make(sequences, budget)
    seen = {}
    for chunk in chunks:
        real = sum(map(len, tokens_of(chunk)))
        assert real <= budget
        assert chunk.computed_tokens <= (budget if make is make_chunks else whole_tiles(budget))
        for row, tokens in zip(chunk.rows.tolist(), tokens_of(chunk), strict=True):
            assert row not in seen
            seen[row] = tokens
    assert [seen[i] for i in range(len(lengths))] == [
        sequences.tokens[a:b].tolist() for a, b in zip(sequences.offsets, sequences.offsets[1:], strict=False)
    ]
    again = make(sequences, budget)
    assert all(
        torch.equal(a, b)
        for one, two in zip(chunks, again, strict=True)
        for a, b in zip(one.inputs, two.inputs, strict=True)
    )


@MAKERS
@given(lengths=LENGTHS, budget=BUDGETS, at_least=st.integers(0, 30))
def test_fillers_bring_the_chunks_up_to_a_number(make, lengths, budget, at_least) -> None:  # type: ignore[no-untyped-def]
    sequences = rows_of(lengths)
    chunks = make(sequences, budget, at_least=at_least)
    fillers = [chunk for chunk in chunks if chunk.is_filler]
    assert len(chunks) == max(at_least, len(make(sequences, budget)))
    assert chunks[len(chunks) - len(fillers) :] == fillers
    # A filler is one token long inside, so that it has a mean, and the smallest that is ever computed.
    assert all(len(tokens_of(filler)) == 1 for filler in fillers)
    assert all(
        filler.computed_tokens <= chunk.computed_tokens
        for filler in fillers
        for chunk in chunks
        if make is make_packed_chunks
    )


@given(lengths=LENGTHS, budget=BUDGETS)
def test_a_pack_is_opened_only_when_no_other_has_room(lengths: list[int], budget: int) -> None:
    packs = plan_packs(np.array(lengths, dtype=np.int64), budget)
    used = [sum(lengths[row] for row in pack) for pack in packs]
    for later, pack in enumerate(packs):
        assert all(used_before + lengths[pack[0]] > budget for used_before in used[:later]) or lengths[pack[0]] == 0
    assert sum(2 * tokens <= budget for tokens in used) <= 1, "at most one pack may be less than half full"


def first_fit(lengths: list[int], budget: int) -> list[list[int]]:
    """The twin: row after row, longest first, into the first chunk with room."""
    packs: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        room = (pack for pack in packs if sum(lengths[i] for i in pack) + lengths[row] <= budget)
        pack = next(room, None)
        if pack is None:
            packs.append([row])
        else:
            pack.append(row)
    return packs


@given(lengths=st.lists(st.integers(0, 60), max_size=80), budget=st.integers(60, 300))
def test_dealing_equal_lengths_together_is_first_fit(lengths: list[int], budget: int) -> None:
    packs = plan_packs(np.array(lengths, dtype=np.int64), budget)
    assert [pack.tolist() for pack in packs] == first_fit(lengths, budget)


@MAKERS
@given(lengths=LENGTHS, budgets=st.sets(BUDGETS, min_size=1, max_size=3))
def test_chunks_planned_ahead_are_those_planned_now(make, lengths, budgets) -> None:  # type: ignore[no-untyped-def]
    sequences = rows_of(lengths)
    planned = sequences.planned(Chunking(make is make_packed_chunks, frozenset(budgets)))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plan_chunks", "plan_packs"):
            patch.setattr(chunks_module, name, None)
        ahead = {budget: make(planned, budget) for budget in budgets}
    for budget, chunks in ahead.items():
        for one, two in zip(chunks, make(sequences, budget), strict=True):
            assert torch.equal(one.rows, two.rows)
            assert all(torch.equal(a, b) for a, b in zip(one.inputs, two.inputs, strict=True))


@MAKERS
def test_a_plan_for_another_budget_or_kind_is_not_used(make) -> None:  # type: ignore[no-untyped-def]
    sequences = rows_of([30, 20, 10] * 5)
    kind = make is make_packed_chunks
    wrong = [np.array([0])]
    planned = replace(sequences, plans={(kind, 61): wrong, (not kind, 60): wrong})
    assert [c.rows.tolist() for c in make(planned, 60)] == [c.rows.tolist() for c in make(sequences, 60)]
    assert [c.rows.tolist() for c in make(planned, 61)] == [[0]]


@given(used=st.integers(0, 5000), budget=st.integers(1, 5000))
def test_packed_sizes_are_few_and_never_twice_what_is_needed(used: int, budget: int) -> None:
    used = min(used, budget)
    size = packed_tokens(used, budget)
    assert used <= size <= whole_tiles(budget)
    assert size % TILE_TOKENS == 0
    # Half the tiles, rounded up, would not have been enough.
    assert size == TILE_TOKENS or whole_tiles(size // 2) < used
    assert len({packed_tokens(other, budget) for other in range(1, budget + 1, 50)}) <= 2 + math.log2(budget)


def test_a_packed_chunk_lies_end_to_end_and_its_tail_is_cut_into_tiles() -> None:
    [chunk] = make_packed_chunks(rows_of([3, 5, 1]), 4 * TILE_TOKENS)
    token_T, document_T, length_B = chunk.inputs
    assert chunk.rows.tolist() == [1, 0, 2]
    assert token_T[:9].tolist() == [100, 101, 102, 103, 104, 0, 1, 2, 200]
    assert length_B.tolist() == [5, 3, 1]
    assert document_T[:9].tolist() == [0] * 5 + [1] * 3 + [2]
    assert len(token_T) == TILE_TOKENS
    assert (document_T[9:] >= 3).all()
    [wide] = make_packed_chunks(rows_of([100] * 6), 8 * TILE_TOKENS)
    _, document_T, _ = wide.inputs
    assert (document_T.diff() >= 0).all()
    tail = document_T[600:]
    assert len(tail) == 8 * TILE_TOKENS - 600
    assert tail.min() >= 6
    assert torch.bincount(tail).max() == TILE_TOKENS


def test_a_row_longer_than_the_budget_is_a_fault_of_ours() -> None:
    with pytest.raises(AssertionError, match="budget"):
        make_packed_chunks(rows_of([61]), 60)


def test_a_chunk_moves_whole() -> None:
    for make in (make_chunks, make_packed_chunks):
        [chunk] = make(rows_of([3, 2]), 60)
        moved = chunk.to(torch.device("meta"))
        assert type(moved) is type(chunk)
        assert all(tensor.device.type == "meta" for tensor in (moved.rows, *moved.inputs))
