"""Pairs of several sources into tokens: each with its own prefixes and limits, counted apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from largede.config.recipe import DataConfig, SourceConfig
from largede.streams.chunks import Chunking, plan_chunks
from largede.streams.pair import Pair
from largede.streams.tokenise import PairTokeniser, SourceCounts

PAIRS = [
    Pair("one two three", "a b", negatives=("n n n n n n",)),
    Pair("four", "c c c c"),
    Pair("five six", "d", negatives=("m", "m m m")),
]


def words_as_tokens(texts: Sequence[str], limit: int) -> list[list[int]]:
    """One token a word, its number of letters; then 1 for the end."""
    return [[*map(len, text.split()[: limit - 1]), 1] for text in texts]


def tokeniser(chunking: Chunking | None = None, **data: Any) -> PairTokeniser:
    made = PairTokeniser("unused", DataConfig(hard_negatives=2, **data), chunking)
    made._encode = words_as_tokens
    return made


def rows(tokens: Any) -> list[list[int]]:
    return [tokens.tokens[a:b].tolist() for a, b in zip(tokens.offsets, tokens.offsets[1:], strict=False)]


MIXED = {
    "b": SourceConfig("b", query_prefix="ask: ", max_passage_tokens=3),
    "a": SourceConfig("a", max_query_tokens=2, passage_prefix="text: "),
}


def test_each_source_has_its_prefixes_and_limits() -> None:
    mixed = tokeniser(sources=MIXED, max_query_tokens=9, max_passage_tokens=6, query_prefix="q ")
    # Sources are numbered by name: 0 is a, 1 is b.
    batch = mixed(PAIRS, 0, np.array([0, 1, 0]))
    assert rows(batch.queries) == [[1, 1], [4, 4, 1], [1, 1]]
    assert rows(batch.passages) == [[5, 1, 1, 1], [1, 1, 1], [5, 1, 1], [5, 1, 1, 1, 1, 1], [5, 1, 1], [5, 1, 1, 1, 1]]
    assert batch.by_source == {"a": SourceCounts(2, 7, 3), "b": SourceCounts(1, 2, 1)}
    assert batch.cut_texts == 4


def test_sources_one_by_one_give_what_they_give_together() -> None:
    mixed = tokeniser(sources=MIXED, max_query_tokens=9, max_passage_tokens=6)
    together = mixed(PAIRS, 0, np.array([0, 1, 0]))
    for number, (name, source) in enumerate([("a", 0), ("b", 1), ("a", 0)]):
        form = mixed.data.text_forms[name]
        alone = tokeniser(
            max_query_tokens=form.max_query_tokens,
            max_passage_tokens=form.max_passage_tokens,
            query_prefix=form.query_prefix,
            passage_prefix=form.passage_prefix,
        )([PAIRS[number]], 0)
        assert rows(alone.queries) == rows(together.queries)[number : number + 1]
        assert rows(alone.passages)[0] == rows(together.passages)[number]
        assert alone.by_source == {}
        assert together.by_source[name].pairs == [2, 1][source]


def test_a_source_without_rows_is_counted_too() -> None:
    batch = tokeniser(sources=MIXED)(PAIRS[:1], 0, np.array([1]))
    assert batch.by_source["a"] == SourceCounts(0, 0, 0)


def test_chunks_are_planned_for_every_budget_asked_for() -> None:
    batch = tokeniser(Chunking(False, frozenset([8, 12])))(PAIRS, 0)
    for side in (batch.queries, batch.passages):
        assert set(side.plans) == {(False, 8), (False, 12)}
        for (_, budget), plan in side.plans.items():
            expected = plan_chunks(side.lengths, budget)
            assert [rows.tolist() for rows in plan] == [rows.tolist() for rows in expected]
            assert sorted(np.concatenate(plan).tolist()) == list(range(len(side)))
