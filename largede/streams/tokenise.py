"""Pairs into tokens: what one rank holds of one contrastive batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from largede.config.recipe import DataConfig
from largede.objectives.contrastive import UNKNOWN_KEY
from largede.streams.chunks import Chunking, TokenRows
from largede.streams.pair import Pair
from largede.streams.pieces import Encode, encoder_of
from largede.text import passage_text, text_key


class SourceCounts(NamedTuple):
    """What a batch has of one source, in pairs and in texts, and how many of those were cut."""

    pairs: int
    texts: int
    cut_texts: int


@dataclass(frozen=True)
class RankBatch:
    """One rank's rows of a contrastive batch.

    `passages` holds the positives in the order of the queries, then every hard negative. A key row of a query is
    (text of its positive, id of its positive, text of the query); columns that share one of them are copies of the
    right answer. A hard negative has no query of its own. `answer_keys` (rows, A) names, padded, further
    passages known to answer the query, each by its text or its id. `by_source` has every source of a mixture, on every
    rank in the same order, and is empty without one.
    """

    step: int
    queries: TokenRows
    passages: TokenRows
    query_keys: np.ndarray
    answer_keys: np.ndarray
    negative_keys: np.ndarray
    sample_names: tuple[str, ...]
    cut_texts: int
    by_source: Mapping[str, SourceCounts] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def real_tokens(self) -> int:
        return len(self.queries.tokens) + len(self.passages.tokens)


class PairTokeniser:
    """Callable (pairs, step, sources) -> RankBatch. It loads its tokenizer where it runs, so it can go to a worker.

    `sources` are the numbers of the pairs' sources in the order of their names; without a mixture there are none. With
    `chunking` the rows of every chunk are planned here, too.
    """

    def __init__(self, tokenizer: str, data: DataConfig, chunking: Chunking | None = None) -> None:
        self.tokenizer_name = tokenizer
        self.data = data
        self.chunking = chunking
        self.forms = list(data.text_forms.values())
        self._encode: Encode | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encode": None}

    @property
    def encode(self) -> Encode:
        if self._encode is None:
            from largede.models.build import load_tokenizer

            self._encode = encoder_of(load_tokenizer(self.tokenizer_name), self.data.tokenizer_backend)
        return self._encode

    def __call__(self, pairs: list[Pair], step: int, sources: np.ndarray | None = None) -> RankBatch:
        source_B = np.zeros(len(pairs), dtype=np.int64) if sources is None else sources
        negatives = [self._chosen_negatives(pair, step) for pair in pairs]
        positives = [passage_text(pair.title, pair.positive) for pair in pairs]
        negative_texts = [text for chosen in negatives for text, _ in chosen]
        negative_ids = [name for chosen in negatives for _, name in chosen]
        source_M = np.concatenate([source_B, np.repeat(source_B, [len(chosen) for chosen in negatives])])
        queries = self._tokens("query", [pair.query for pair in pairs], source_B)
        passages = self._tokens("passage", positives + negative_texts, source_M)
        return RankBatch(
            step=step,
            queries=queries.rows,
            passages=passages.rows,
            query_keys=_query_keys(pairs, positives),
            answer_keys=_answer_keys(pairs),
            negative_keys=_negative_keys(negative_texts, negative_ids),
            sample_names=tuple(pair.query_id or pair.query[:80] for pair in pairs),
            cut_texts=int(queries.is_cut.sum() + passages.is_cut.sum()),
            by_source=self._by_source(queries, passages, source_B, source_M) if len(self.forms) > 1 else {},
        )

    def _by_source(
        self, queries: "CutRows", passages: "CutRows", source_B: np.ndarray, source_M: np.ndarray
    ) -> dict[str, SourceCounts]:
        source_T = np.concatenate([source_B, source_M])
        is_cut_T = np.concatenate([queries.is_cut, passages.is_cut])
        columns = (source_B, source_T, source_T[is_cut_T])
        counts = zip(*(np.bincount(column, minlength=len(self.forms)).tolist() for column in columns), strict=True)
        return {name: SourceCounts(*count) for name, count in zip(self.data.text_forms, counts, strict=True)}

    def _chosen_negatives(self, pair: Pair, step: int) -> list[tuple[str, str]]:
        """Up to `hard_negatives` of the pair's own (text, id): a choice by query and step, independent of all else."""
        wanted = min(self.data.hard_negatives, len(pair.negatives))
        if wanted == 0:
            return []
        titles = pair.negative_titles or ("",) * len(pair.negatives)
        names = pair.negative_ids or ("",) * len(pair.negatives)
        generator = np.random.Generator(np.random.Philox(key=[text_key(pair.query), step]))
        chosen = sorted(generator.choice(len(pair.negatives), wanted, replace=False))
        return [(passage_text(titles[i], pair.negatives[i]), names[i]) for i in chosen]

    def _tokens(self, side: Literal["query", "passage"], texts: Sequence[str], source_T: np.ndarray) -> "CutRows":
        """Token rows with their source's prefix, cut to its limit (the end-of-sequence token kept)."""
        forms = [form.of_side(side) for form in self.forms]
        prefixed = [forms[source][0] + text for source, text in zip(source_T.tolist(), texts, strict=True)]
        limit_T = np.array([limit for _, limit in forms], dtype=np.int64)[source_T]
        rows = TokenRows.of(self._encoded(prefixed, limit_T))
        # A row at the limit may have been exactly that long; counting it as cut errs by those few.
        return CutRows(rows.planned(self.chunking) if self.chunking else rows, rows.lengths >= limit_T)

    def _encoded(self, texts: list[str], limit_T: np.ndarray) -> list[list[int]]:
        encoded: list[list[int]] = [[]] * len(texts)
        for limit in np.unique(limit_T).tolist():
            of_limit = np.flatnonzero(limit_T == limit).tolist()
            for place, tokens in zip(of_limit, self.encode([texts[i] for i in of_limit], limit), strict=True):
                encoded[place] = tokens
        return encoded


class CutRows(NamedTuple):
    """Token rows, and which of them were cut at their limit."""

    rows: TokenRows
    is_cut: np.ndarray


def _query_keys(pairs: list[Pair], passages: list[str]) -> np.ndarray:
    keys = np.full((len(pairs), 3), UNKNOWN_KEY, dtype=np.int64)
    for i, (pair, passage) in enumerate(zip(pairs, passages, strict=True)):
        keys[i] = (text_key(passage), id_key(pair.positive_id), text_key(pair.query))
    return keys


def _answer_keys(pairs: list[Pair]) -> np.ndarray:
    """(rows, A): keys of each pair's other positives, filled up with unknown keys."""
    keys = np.full((len(pairs), max(len(p.other_positives) for p in pairs)), UNKNOWN_KEY, dtype=np.int64)
    for i, pair in enumerate(pairs):
        keys[i, : len(pair.other_positives)] = [text_key(name) for name in pair.other_positives]
    return keys


def _negative_keys(texts: list[str], names: list[str]) -> np.ndarray:
    keys = np.full((len(texts), 3), UNKNOWN_KEY, dtype=np.int64)
    for i, (text, name) in enumerate(zip(texts, names, strict=True)):
        keys[i, :2] = (text_key(text), id_key(name))
    return keys


def id_key(name: str) -> int:
    return text_key(name) if name else UNKNOWN_KEY
