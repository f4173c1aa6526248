"""Pairs into tokens: what one rank holds of one contrastive batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from largede.config.recipe import DataConfig
from largede.objectives.contrastive import UNKNOWN_KEY
from largede.streams.chunks import TokenRows
from largede.streams.pair import Pair
from largede.streams.pieces import Encode, encoder_of
from largede.text import passage_text, text_key


@dataclass(frozen=True)
class RankBatch:
    """One rank's rows of a contrastive batch.

    `passages` holds the positives in the order of the queries, then every hard negative. A key row of a query is
    (text of its positive, id of its positive, text of the query); columns that share one of them are copies of the
    right answer. A hard negative has no query of its own. `answer_keys` (rows, A) names, padded, further
    passages known to answer the query, each by its text or its id.
    """

    step: int
    queries: TokenRows
    passages: TokenRows
    query_keys: np.ndarray
    answer_keys: np.ndarray
    negative_keys: np.ndarray
    sample_names: tuple[str, ...]
    cut_texts: int

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def real_tokens(self) -> int:
        return len(self.queries.tokens) + len(self.passages.tokens)


class PairTokeniser:
    """Callable (pairs, step) -> RankBatch. It loads its tokenizer where it runs, so it can be sent to a worker."""

    def __init__(self, tokenizer: str, data: DataConfig) -> None:
        self.tokenizer_name = tokenizer
        self.data = data
        self._encode: Encode | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encode": None}

    @property
    def encode(self) -> Encode:
        if self._encode is None:
            from largede.models.build import load_tokenizer

            self._encode = encoder_of(load_tokenizer(self.tokenizer_name), self.data.tokenizer_backend)
        return self._encode

    def __call__(self, pairs: list[Pair], step: int) -> RankBatch:
        negatives = [self._chosen_negatives(pair, step) for pair in pairs]
        queries = [self.data.query_prefix + pair.query for pair in pairs]
        passages = [passage_text(pair.title, pair.positive) for pair in pairs]
        negative_texts = [text for chosen in negatives for text, _ in chosen]
        negative_ids = [name for chosen in negatives for _, name in chosen]
        prefixed = [self.data.passage_prefix + text for text in passages + negative_texts]
        query_rows, cut_queries = self._tokens(queries, self.data.max_query_tokens)
        passage_rows, cut_passages = self._tokens(prefixed, self.data.max_passage_tokens)
        return RankBatch(
            step=step,
            queries=query_rows,
            passages=passage_rows,
            query_keys=_query_keys(pairs, passages),
            answer_keys=_answer_keys(pairs),
            negative_keys=_negative_keys(negative_texts, negative_ids),
            sample_names=tuple(pair.query_id or pair.query[:80] for pair in pairs),
            cut_texts=cut_queries + cut_passages,
        )

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

    def _tokens(self, texts: Sequence[str], limit: int) -> tuple[TokenRows, int]:
        """Token rows cut to `limit` (the end-of-sequence token kept), and how many were cut."""
        rows = TokenRows.of(self.encode(texts, limit))
        # A row at the limit may have been exactly that long; counting it as cut errs by those few.
        return rows, int((rows.lengths >= limit).sum())


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
