"""The pool: the passages that may become negatives, and the pairs that need them, cut into windows.

    corpus.jsonl           the distinct positives of all pairs; not written where there is a corpus already
    window-00000.jsonl     the pairs of one window, each with the name of its query and the row of its positive
    tables.npz             what is known of passages: keys of their texts and ids, whom they answer, their groups

Keys are 63-bit hashes, so the tables take some 40 bytes for each passage and pair; no text is held.
"""

import itertools
import json
import re
import unicodedata
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from largede.errors import DataError
from largede.files import writing
from largede.retrieval.corpus import Corpus, open_corpus
from largede.retrieval.mine.sources import BeirSplit, PairSource, rows_by_id
from largede.streams.pair import Pair
from largede.text import passage_text, text_key

Keys = NDArray[np.int64]

NO_KEY = -1
"""Of an id or a group that is not there, and of a passage without text."""


def normalised(text: str) -> str:
    """Words alone, compatible characters and cases made one; a text without any word is itself."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(words) or text


@dataclass(frozen=True, eq=False)
class KeyTable:
    """From a key to the rows that belong to it: two parallel columns, sorted by key."""

    keys: Keys
    rows: Keys

    @classmethod
    def of(cls, keys: Keys, rows: Keys) -> "KeyTable":
        """Entries without a key are left out, equal ones kept once."""
        entries = np.unique(np.stack([keys, rows], axis=1)[keys != NO_KEY], axis=0)
        return cls(entries[:, 0], entries[:, 1])

    def rows_of(self, key: int) -> Keys:
        first, last = np.searchsorted(self.keys, key, side="left"), np.searchsorted(self.keys, key, side="right")
        return self.rows[first:last]


@dataclass(frozen=True, eq=False)
class Tables:
    """What is known of the N passages of the pool, by row, and of whom they answer.

    `text` and `id` are the keys by which a pair's other positives name a passage, `normal` that of its normalised text.
    """

    text: Keys
    normal: Keys
    id: Keys
    answers: KeyTable
    groups: KeyTable

    def save(self, path: Path) -> None:
        columns = {"text": self.text, "normal": self.normal, "id": self.id}
        for name in ("answers", "groups"):
            table: KeyTable = getattr(self, name)
            columns |= {f"{name}_keys": table.keys, f"{name}_rows": table.rows}
        with writing(path) as stream:
            np.savez(stream, **columns)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> "Tables":
        with np.load(path, allow_pickle=False) as columns:
            tables = {
                name: KeyTable(columns[f"{name}_keys"], columns[f"{name}_rows"]) for name in ("answers", "groups")
            }
            return cls(columns["text"], columns["normal"], columns["id"], **tables)


@dataclass(frozen=True, slots=True)
class PoolPair:
    """A training pair in the pool: the name its query has in ranked lists, and the row of its positive."""

    query_id: str
    row: int
    pair: Pair


@dataclass(frozen=True)
class Pool:
    """A finished pool. `windows` holds the pairs of each window in its file."""

    folder: Path
    corpus: Corpus
    windows: tuple[Path, ...]

    @cached_property
    def tables(self) -> Tables:
        return Tables.load(self.folder / TABLES)

    @cached_property
    def row_of(self) -> dict[str, int]:
        return rows_by_id(self.corpus)

    @staticmethod
    def pairs(window: Path) -> Iterator[PoolPair]:
        """The pairs of one window, in the order of the source."""
        with window.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                record = json.loads(line)
                pair = Pair.from_dict(record["pair"], f"{window} line {number}")
                yield PoolPair(record["query_id"], record["row"], pair)

    @staticmethod
    def queries(window: Path) -> dict[str, str]:
        """The queries of one window by name, each once."""
        return {found.query_id: found.pair.query for found in Pool.pairs(window)}


TABLES = "tables.npz"
CORPUS = "corpus.jsonl"


def files_of(folder: Path, source: PairSource) -> list[Path]:
    """What a pool consists of, as far as it is there."""
    named = [folder / TABLES, *((folder / CORPUS,) if source.corpus is None else ())]
    return [*named, *sorted(folder.glob("window-?????.jsonl"))]


def window_path(folder: Path, number: int) -> Path:
    return folder / f"window-{number:05d}.jsonl"


def open_pool(folder: Path, source: PairSource) -> Pool:
    """The pool that `write_pool` left in `folder`."""
    windows = tuple(sorted(folder.glob("window-?????.jsonl")))
    return Pool(folder, source.corpus or open_corpus(folder / CORPUS), windows)


def write_pool(source: PairSource, folder: Path, window: int) -> None:
    """Read the pairs twice: for what is known of them, then to write them down in windows.

    Raises DataError when there is no pair, when a pair's positive is not in the corpus, or when the pairs change.
    """
    for stale in folder.glob("window-*.jsonl"):
        stale.unlink()
    known = _known(source)
    tables = _tables_of_corpus(source.corpus, known) if source.corpus else _tables_of_positives(known)
    _write_pairs(source, known, folder, window)
    tables.save(folder / TABLES)


@dataclass(eq=False)
class _Known:
    """A column for each thing known of the pairs, in their order; `row` is that of the positive in the pool."""

    query: Any
    positive: Any
    normal: Any
    id: Any
    group: Any
    row: Any = None
    is_first: Any = None


def _known(source: PairSource) -> _Known:
    """One pass over the pairs."""
    columns = _Known(*(array("q") for _ in range(5)))
    row_of = rows_by_id(source.corpus) if source.corpus else {}
    rows = array("q")
    for pair in source.pairs():
        contents = passage_text(pair.title, pair.positive)
        columns.query.append(text_key(pair.query))
        columns.positive.append(text_key(contents))
        columns.normal.append(text_key(normalised(contents)))
        columns.id.append(_key_or_none(pair.positive_id))
        columns.group.append(_key_or_none(pair.group))
        if source.corpus:
            rows.append(_row_in(source.corpus, row_of, pair))
    if not columns.query:
        raise DataError(f"{source.words} holds no pairs", expected="one pair at least", mend="name another --data")
    known = _Known(*(np.array(getattr(columns, item.name), dtype=np.int64) for item in fields(_Known)[:5]))
    known.row, known.is_first = _numbered(known.positive) if source.corpus is None else (np.array(rows), None)
    return known


def _row_in(corpus: Corpus, row_of: dict[str, int], pair: Pair) -> int:
    if pair.positive_id not in row_of:
        raise DataError(
            f"the positive {pair.positive_id!r} of the query {pair.query[:60]!r} is not in {corpus.path}",
            expected="pairs whose positive_id names a document of the corpus",
            mend="give the corpus that the pairs were made of, or leave --corpus out",
        )
    return row_of[pair.positive_id]


def _numbered(keys: Keys) -> tuple[Keys, NDArray[np.bool_]]:
    """The number of each key in the order of first occurrence, and which occurrences are the first."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    is_first = np.zeros(len(keys), dtype=np.bool_)
    is_first[first] = True
    return number[inverse], is_first


def _tables_of_positives(known: _Known) -> Tables:
    first = known.is_first
    return Tables(
        known.positive[first],
        known.normal[first],
        known.id[first],
        KeyTable.of(known.query, known.row),
        KeyTable.of(known.group, known.row),
    )


def _tables_of_corpus(corpus: Corpus, known: _Known) -> Tables:
    """One pass over the corpus. A passage that no pair could hold as a negative has no key of its text."""
    columns = np.full((3, len(corpus)), NO_KEY, dtype=np.int64)
    for row, document in enumerate(corpus.documents()):
        columns[2, row] = text_key(document.id)
        if document.contents and _can_be_written(document.contents):
            columns[:2, row] = text_key(document.contents), text_key(normalised(document.contents))
    answers, groups = KeyTable.of(known.query, known.row), KeyTable.of(known.group, known.row)
    return Tables(columns[0], columns[1], columns[2], answers, groups)


def _can_be_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a Unicode character, which JSON may spell
        return False
    return True


def _write_pairs(source: PairSource, known: _Known, folder: Path, window: int) -> None:
    """The second pass: the windows, and the corpus where it is made of the positives."""
    pairs = zip(itertools.count(), source.pairs(), strict=False)
    with ExitStack() as closing:
        corpus = closing.enter_context(writing(folder / CORPUS)) if source.corpus is None else None
        for number in range(-(-len(known.query) // window)):
            with writing(window_path(folder, number)) as stream:
                for index, pair in itertools.islice(pairs, window):
                    _demand_same(source, known, index, pair)
                    query_id, row = _query_id(source, known, index, pair), int(known.row[index])
                    stream.write(_line({"query_id": query_id, "row": row, "pair": pair.to_dict()}))
                    if corpus is not None and known.is_first[index]:
                        corpus.write(_line({"_id": f"passage-{row}", "title": pair.title, "text": pair.positive}))
        if next(pairs, None) is not None:
            raise _changed(source)


def _demand_same(source: PairSource, known: _Known, index: int, pair: Pair) -> None:
    contents = passage_text(pair.title, pair.positive)
    if index >= len(known.query) or (text_key(pair.query), text_key(contents)) != (
        known.query[index],
        known.positive[index],
    ):
        raise _changed(source)


def _changed(source: PairSource) -> DataError:
    return DataError(
        f"{source.words} changed while it was read", expected="pairs that nobody writes to", mend="run it again"
    )


def _query_id(source: PairSource, known: _Known, index: int, pair: Pair) -> str:
    """A name without white space, the same for queries of the same text. In a collection it is the query's own."""
    if isinstance(source, BeirSplit):
        return pair.query_id
    return f"query-{known.query[index]:x}"


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _key_or_none(name: str) -> int:
    return text_key(name) if name else NO_KEY
