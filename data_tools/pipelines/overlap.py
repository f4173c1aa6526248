"""The index of test texts that `decontaminate` looks training texts up in.

Every run of words of every test text is a 64-bit hash with the number of its text: 12 bytes each, sorted, beside a
table of a byte for each of 2^k leading bits that answers most look-ups ("not there") without a search. It is built once
and mapped into memory by every task, so tasks of one machine share it.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.pipelines.words import Hashes, run_at, run_hashes, runs_of_lengths, words
from largede.files import read_json_object, write_json, writing

_FILES = ("hashes", "owners", "table", "starts")
# Table bytes for each hash; one look-up in as many goes on to the search although nothing is there.
_TABLE_FACTOR = 16
_MIN_BITS, _MAX_BITS = 10, 30


QUERY, PASSAGE = "query", "passage"


@dataclass(frozen=True)
class RunLengths:
    """Words of a run that may not be shared, and from how many words on a shorter test text counts inside a longer one.

    That is `shortest` anywhere, and for test queries inside training queries `shortest_query`.
    """

    run: int
    shortest: int
    shortest_query: int


@dataclass(frozen=True)
class BenchmarkText:
    """A query or passage of a test collection."""

    collection: str
    kind: str
    id: str
    text: str


@dataclass(frozen=True)
class Overlap:
    """A run of words that a training text shares with a test text.

    `short_inside`: the test text is a query too short to be looked for inside anything but queries.
    """

    run: str
    test: BenchmarkText
    short_inside: bool


def write_index(texts: Iterable[BenchmarkText], lengths: RunLengths, folder: Path) -> None:
    """Build the index of runs of words. Of one collection the first text that holds a run owns it.

    A text with fewer words is one run.
    """
    hashes: list[Hashes] = [np.empty(0, np.uint64)]
    short = _ShortTexts(lengths)
    collections: list[str] = []
    starts = [0]
    with writing(folder / "texts.jsonl") as stream:
        for text in texts:
            found = words(text.text)
            hashes.append(run_hashes(found, lengths.run))
            short.note(text.kind, len(found))
            collections.append(text.collection)
            starts.append(starts[-1] + stream.write(_line(text)))
    owners = np.repeat(np.arange(len(collections), dtype=np.uint32), [len(each) for each in hashes[1:]])
    kept = _sorted_once(np.concatenate(hashes), owners, collections)
    size = _save(folder, (*kept, _table(kept[0]), np.array(starts, np.int64)))
    write_json(folder / "index.json", {"runs": len(kept[0]), "bytes": size} | short.to_dict())


class _ShortTexts:
    """The lengths in words under which texts are looked up: that of a run, and those of shorter texts that count."""

    def __init__(self, lengths: RunLengths) -> None:
        self._lengths = lengths
        self._anywhere = {lengths.run}
        self._in_queries: set[int] = set()

    def note(self, kind: str, count: int) -> None:
        if self._lengths.shortest <= count < self._lengths.run:
            self._anywhere.add(count)
        elif kind == QUERY and self._lengths.shortest_query <= count < self._lengths.run:
            self._in_queries.add(count)

    def to_dict(self) -> dict[str, list[int]]:
        return {
            "lengths": sorted(self._anywhere, reverse=True),
            "lengths_in_queries": sorted(self._in_queries - self._anywhere, reverse=True),
        }


def _line(text: BenchmarkText) -> bytes:
    return json.dumps([text.collection, text.kind, text.id, text.text]).encode() + b"\n"


def _save(folder: Path, arrays: Sequence[npt.NDArray[Any]]) -> int:
    """Bytes of all of them."""
    for name, array in zip(_FILES, arrays, strict=True):
        with writing(folder / f"{name}.npy") as stream:
            np.save(stream, array)
    return sum(array.nbytes for array in arrays)


def _sorted_once(
    hashes: Hashes, owners: npt.NDArray[np.uint32], collections: Sequence[str]
) -> tuple[Hashes, npt.NDArray[np.uint32]]:
    """Sorted by hash, then by text; a hash stands once for each collection that holds it."""
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    group = np.unique(np.array(collections), return_inverse=True)[1].reshape(-1)[owners]
    # Texts come collection by collection, so equal (hash, collection) lie side by side.
    fresh = np.ones(len(hashes), bool)
    fresh[1:] = (hashes[1:] != hashes[:-1]) | (group[1:] != group[:-1])
    return hashes[fresh], owners[fresh]


def _table(hashes: Hashes) -> npt.NDArray[np.bool_]:
    bits = min(_MAX_BITS, max(_MIN_BITS, (len(hashes) * _TABLE_FACTOR).bit_length()))
    table = np.zeros(1 << bits, bool)
    table[hashes >> np.uint64(64 - bits)] = True
    return table


class OverlapIndex:
    """Reads what `write_index` wrote."""

    def __init__(self, folder: Path) -> None:
        # Plain views of the mapped files: a memmap costs more to index than to search.
        arrays = [np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in _FILES]
        self._hashes, self._owners, self._table, self._starts = arrays
        self._texts = folder / "texts.jsonl"
        self._shift = np.uint64(64 - (len(self._table).bit_length() - 1))
        facts = read_json_object(folder / "index.json")
        self._lengths: list[int] = facts["lengths"]
        self._lengths_in_queries: list[int] = facts["lengths_in_queries"]
        self._text = lru_cache(maxsize=4096)(self._read_text)

    def overlaps(self, found: list[str], in_query: bool) -> dict[str, Overlap]:
        """For each collection that shares a run with these words, the first such run; none: an empty answer.

        `in_query`: they are those of a training query, in which shorter test queries count.
        Hashes only propose. A run counts when the words of the test text really hold it.
        """
        shared: dict[str, Overlap] = {}
        whole = [len(found)] if len(found) < self._lengths[0] else []
        in_queries = self._lengths_in_queries if in_query else []
        hashes, lengths = runs_of_lengths(found, [*self._lengths, *in_queries, *whole])
        for number in self._held(hashes):
            first, length = run_at(number, len(found), lengths)
            run = found[first : first + length]
            short_inside = length < len(found) and length in in_queries
            for test in self._owners_of(hashes[number], run):
                if test.kind == QUERY or not short_inside:
                    shared.setdefault(test.collection, Overlap(" ".join(run), test, short_inside))
        return shared

    def _owners_of(self, run_hash: np.uint64, run: list[str]) -> Iterator[BenchmarkText]:
        first = int(np.searchsorted(self._hashes, run_hash))
        while first < len(self._hashes) and self._hashes[first] == run_hash:
            text, text_words = self._text(int(self._owners[first]))
            if _holds(text_words, run, self._lengths[0]):
                yield text
            first += 1

    def _held(self, hashes: Hashes) -> list[int]:
        """The numbers of the hashes that the index holds, in order."""
        candidates = np.flatnonzero(self._table[hashes >> self._shift])
        if not len(candidates):
            return []
        wanted = hashes[candidates]
        found = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        numbers: list[int] = candidates[self._hashes[found] == wanted].tolist()
        return numbers

    def _read_text(self, number: int) -> tuple[BenchmarkText, list[str]]:
        with self._texts.open("rb") as stream:
            stream.seek(int(self._starts[number]))
            text = BenchmarkText(*json.loads(stream.readline()))
        return text, words(text.text)


def _holds(text: list[str], run: list[str], length: int) -> bool:
    """Whether the run is one of the text's: of `length` words, or all of a text that has fewer."""
    if len(text) < length or len(run) < length:
        return text == run
    return any(text[first : first + length] == run for first in range(len(text) - length + 1))
