"""What the pairs of some blocks are like, in memory that does not grow with them.

Surveys of parts are added up to the survey of the whole, so shards can be looked at in several processes.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.processes import in_processes
from largede.streams.index import Shard, ShardIndex
from largede.streams.pair import Pair
from largede.streams.read import BlockReader
from largede.streams.shuffle import permutation
from largede.text import passage_text

MOST_KEYS = 1 << 24
"""Texts that are told apart for counting duplicates: 400 MB, and as much again while they are sorted."""
_MOST_SOURCES = 1 << 16
OTHER_SOURCES = "(further sources)"


class Lengths:
    """How many texts have each length; lengths from `most` on count as `most`."""

    most = 1 << 16

    def __init__(self) -> None:
        self.counts = np.zeros(self.most + 1, dtype=np.int64)

    def add(self, lengths: Sequence[int]) -> None:
        self.counts += np.bincount(np.minimum(lengths, self.most), minlength=self.most + 1)

    def merge(self, other: "Lengths") -> None:
        self.counts += other.counts

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        return float(self.counts @ np.arange(len(self.counts)) / self.total)

    def percentile(self, percent: float) -> int:
        """The smallest length that `percent` of the texts do not exceed."""
        wanted = np.ceil(self.total * percent / 100)
        return int(np.searchsorted(np.cumsum(self.counts), max(wanted, 1)))

    def above(self, limit: int) -> int:
        """Texts longer than `limit`."""
        return int(self.counts[limit + 1 :].sum())


class Keys:
    """64-bit keys of (query, positive), of at most about MOST_KEYS pairs.

    When there are more, only pairs whose query's key is a multiple of a growing power of two are kept. All pairs of a
    query stay or go together, and so do all copies of a pair: their shares stay right, measured on fewer queries. A
    positive loses its other queries though, so what is counted of positives is then too low.
    """

    def __init__(self) -> None:
        self.keys = np.zeros((0, 2), dtype=np.uint64)
        self.every = 1

    def add(self, pairs: Sequence[Pair]) -> None:
        texts = ((pair.query, passage_text(pair.title, pair.positive)) for pair in pairs)
        keys = np.array([[_key(query), _key(passage)] for query, passage in texts], dtype=np.uint64)
        self._append(keys)

    def merge(self, other: "Keys") -> None:
        self.every = max(self.every, other.every)
        self._append(other.keys)

    def _append(self, keys: NDArray[np.uint64]) -> None:
        self.keys = self._kept(np.concatenate([self.keys, keys]))
        while len(self.keys) > MOST_KEYS:
            self.every *= 2
            self.keys = self._kept(self.keys)

    def _kept(self, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return keys if self.every == 1 else keys[keys[:, 0] % np.uint64(self.every) == 0]

    def duplicates(self) -> "Duplicates":
        distinct = np.unique(self.keys, axis=0)
        positives_of_query = np.unique(distinct[:, 0], return_counts=True)[1]
        queries_of_positive = np.unique(distinct[:, 1], return_counts=True)[1]
        return Duplicates(
            pairs=len(self.keys),
            copies=len(self.keys) - len(distinct),
            queries=len(positives_of_query),
            queries_with_more=int((positives_of_query > 1).sum()),
            positives=len(queries_of_positive),
            positives_with_more=int((queries_of_positive > 1).sum()),
        )


@dataclass(frozen=True)
class Duplicates:
    """Of `pairs` pairs `copies` repeat another one. `queries_with_more` distinct queries have several positives, and
    `positives_with_more` distinct positives (title and body) have several queries."""

    pairs: int
    copies: int
    queries: int
    queries_with_more: int
    positives: int
    positives_with_more: int


@dataclass
class Survey:
    """Counts over pairs. Lengths are those of the query and of the passage with its title."""

    pairs: int = 0
    blocks: int = 0
    stored_bytes: int = 0
    text_bytes: int = 0
    with_negatives: int = 0
    negatives: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    words: tuple[Lengths, Lengths] = field(default_factory=lambda: (Lengths(), Lengths()))
    tokens: tuple[Lengths, Lengths] = field(default_factory=lambda: (Lengths(), Lengths()))
    keys: Keys = field(default_factory=Keys)

    def merge(self, other: "Survey") -> None:
        for name in ("pairs", "blocks", "stored_bytes", "text_bytes", "with_negatives", "negatives"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.note_sources(other.sources)
        for mine, theirs in zip((*self.words, *self.tokens), (*other.words, *other.tokens), strict=True):
            mine.merge(theirs)
        self.keys.merge(other.keys)

    def note_sources(self, counts: Counter[str]) -> None:
        for source, count in counts.items():
            known = source in self.sources or len(self.sources) < _MOST_SOURCES
            self.sources[source if known else OTHER_SOURCES] += count

    def add(self, pairs: Sequence[Pair], stored_bytes: int, tokenizer: Any) -> None:
        """Count one block."""
        texts = ([pair.query for pair in pairs], [passage_text(pair.title, pair.positive) for pair in pairs])
        self.pairs += len(pairs)
        self.blocks += 1
        self.stored_bytes += stored_bytes
        self.text_bytes += sum(map(_text_bytes, pairs))
        self.with_negatives += sum(1 for pair in pairs if pair.negatives)
        self.negatives += sum(len(pair.negatives) for pair in pairs)
        self.note_sources(Counter(pair.source for pair in pairs))
        self.keys.add(pairs)
        for some, words, tokens in zip(texts, self.words, self.tokens, strict=True):
            words.add([len(text.split()) for text in some])
            if tokenizer is not None:
                tokens.add([len(ids) for ids in tokenizer(some, return_attention_mask=False)["input_ids"]])


def survey(index: ShardIndex, chosen: Sequence[NDArray[np.int64]], tokenizer: str | None, workers: int) -> Survey:
    """Look at the chosen blocks of each shard. Raises DataError where one is damaged or missing."""
    tasks = [(shard, blocks) for shard, blocks in zip(index.shards, chosen, strict=True) if len(blocks)]
    whole = Survey()
    look = partial(_survey_shard, replace(index, shards=()), tokenizer)
    for part in in_processes(look, tasks, workers):
        whole.merge(part)
    return whole


def pairs_of(index: ShardIndex, shard: int, block: int) -> list[Pair]:
    """The pairs of one block. Raises DataError when it is damaged or missing."""
    rows = int(index.shards[shard].blocks[block, 2])
    return BlockReader(index).pairs(np.array([[shard, block, row] for row in range(rows)], dtype=np.int64))


def sampled_blocks(index: ShardIndex, blocks: int | None, seed: int) -> list[NDArray[np.int64]]:
    """For each shard the numbers of its blocks that are looked at: `blocks` of all, by `seed`; None means all."""
    counts = [len(shard.blocks) for shard in index.shards]
    total = sum(counts)
    places = np.arange(total) if blocks is None else np.sort(permutation(total, "inspect", seed)[:blocks])
    starts = np.cumsum([0, *counts])
    bounds = np.searchsorted(places, starts)
    return [places[bounds[shard] : bounds[shard + 1]] - starts[shard] for shard in range(len(counts))]


def _survey_shard(rest: ShardIndex, tokenizer_name: str | None, task: tuple[Shard, NDArray[np.int64]]) -> Survey:
    shard, blocks = task
    index, part, tokenizer = replace(rest, shards=(shard,)), Survey(), _tokenizer(tokenizer_name)
    for block in blocks.tolist():
        part.add(pairs_of(index, 0, block), int(shard.blocks[block, 1]), tokenizer)
    return part


_tokenizers: dict[str, Any] = {}


def _tokenizer(name: str | None) -> Any:
    """Loaded once in each process."""
    if name is None:
        return None
    if name not in _tokenizers:
        from largede.models.build import load_tokenizer

        _tokenizers[name] = load_tokenizer(name)
    return _tokenizers[name]


def _text_bytes(pair: Pair) -> int:
    """Bytes of all texts of a pair in UTF-8."""
    return sum(len(text.encode()) for text in _texts(pair))


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, tuple):
            yield from value


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
