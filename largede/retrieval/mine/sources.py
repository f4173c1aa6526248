"""Where training pairs come from: always the same pairs in the same order, since they are read twice."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from largede.errors import DataError
from largede.files import fingerprint_of, sha256_file
from largede.retrieval.corpus import Benchmark, Corpus, Document, open_benchmark
from largede.streams.block import DamagedBlock
from largede.streams.index import ShardIndex
from largede.streams.pair import Pair
from largede.streams.read import read_block

if TYPE_CHECKING:
    from data_tools.inputs import InputFile

_QUERIES_AT_ONCE = 256


class PairSource(Protocol):
    """Training pairs. `corpus` is where negatives come from when it is not the pairs' own positives."""

    @property
    def words(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Of everything that `pairs` yields."""
        ...

    @property
    def corpus(self) -> Corpus | None: ...

    def pairs(self) -> Iterator[Pair]: ...


@dataclass(frozen=True)
class PairFiles:
    """JSON lines of pairs, plain or compressed; of a folder its parts, as `largede-data shard` reads them."""

    inputs: tuple[Path, ...]
    corpus: Corpus | None = None

    @property
    def words(self) -> str:
        return ", ".join(map(str, self.inputs))

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of([sha256_file(file.path) for file in self._files])

    @cached_property
    def _files(self) -> list["InputFile"]:
        from data_tools.inputs import input_files

        return input_files(self.inputs)

    def pairs(self) -> Iterator[Pair]:
        """Raises DataError, naming file and line, for what is no pair."""
        from data_tools.pairs import PairReader

        yield from PairReader([file.path for file in self._files], counts=[file.pairs for file in self._files])


@dataclass(frozen=True)
class BeirSplit:
    """The judged pairs of one split of a folder in BEIR format: one for each relevant passage of each query.

    A pair names all other relevant passages among its `other_positives`; no more than `max_positives` of a query become
    pairs, in the order of the qrels.
    """

    benchmark: Benchmark
    max_positives: int = 1000

    @property
    def words(self) -> str:
        return f"{self.benchmark.name}, split {self.benchmark.split}"

    @property
    def corpus(self) -> Corpus:
        return self.benchmark.corpus

    @property
    def fingerprint(self) -> str:
        return fingerprint_of([self.benchmark.fingerprint, self.max_positives])

    def pairs(self) -> Iterator[Pair]:
        """Queries in the order of their file. A passage without any text makes no pair."""
        row_of = rows_by_id(self.corpus)
        queries = iter(self.benchmark.queries.items())
        while some := list(itertools.islice(queries, _QUERIES_AT_ONCE)):
            wanted = [row_of[id_] for query, _ in some for id_ in self._relevant(query)[: self.max_positives]]
            passages = documents_at(self.corpus, wanted)
            for id_, text in some:
                yield from self._pairs_of(id_, text, passages, row_of)

    def _relevant(self, query: str) -> list[str]:
        return [id_ for id_, grade in self.benchmark.qrels[query].items() if grade > 0]

    def _pairs_of(self, id_: str, text: str, passages: dict[int, Document], row_of: dict[str, int]) -> Iterator[Pair]:
        relevant = self._relevant(id_)
        for number, positive in enumerate(relevant[: self.max_positives]):
            title, body = texts_of(passages[row_of[positive]])
            if body:
                others = (*relevant[:number], *relevant[number + 1 :])
                yield Pair(text, body, title, query_id=id_, positive_id=positive, other_positives=others)


@dataclass(frozen=True)
class ShardPairs:
    """The pairs of a set of shards, shard by shard, block by block, in the order in which they lie there."""

    index: ShardIndex
    corpus: Corpus | None = None

    @property
    def words(self) -> str:
        return f"the shards {self.index.place}"

    @property
    def fingerprint(self) -> str:
        return self.index.fingerprint

    def pairs(self) -> Iterator[Pair]:
        for shard in self.index.shards:
            for number in range(len(shard.blocks)):
                yield from self.block(shard.name, number, shard.blocks[number])

    def block(self, name: str, number: int, entry: np.ndarray) -> Sequence[Pair]:
        """Raises DataError for a damaged block: its pairs would be missing from their places."""
        try:
            return read_block(self.index.place, name, entry)
        except DamagedBlock as damage:
            raise DataError(
                f"{self.index.place.where(name)} block {number} {damage}",
                expected="shards as `largede-data shard` wrote them",
                mend=f"run `largede-data verify {self.index.place}` and restore that shard",
            ) from None


def open_source(
    inputs: Sequence[Path], split: str, max_positives: int = 1000, corpus: Corpus | None = None
) -> PairSource:
    """Files or folders of pairs, or one folder in BEIR format. Raises DataError for what is neither.

    `corpus` is where the negatives of pairs are to come from; a collection has its own.
    """
    beir = [path for path in inputs if (path / "corpus.jsonl").is_file()]
    if beir and len(inputs) > 1:
        raise DataError(
            f"{beir[0]} is a collection in BEIR format, given with {len(inputs) - 1} more",
            expected="one collection, or files of pairs",
            mend="mine each collection into its own --out; `largede-data shard` takes several folders",
        )
    if beir and corpus is not None:
        raise DataError(f"--corpus with the collection {beir[0]}", expected="its own corpus", mend="leave --corpus out")
    if beir:
        return BeirSplit(open_benchmark(beir[0], split), max_positives)
    for path in inputs:
        if not path.exists():
            raise DataError(f"there is no {path}", expected="pairs, or a folder in BEIR format", mend="check --data")
    return PairFiles(tuple(inputs), corpus)


def rows_by_id(corpus: Corpus) -> dict[str, int]:
    return {id_: row for row, id_ in enumerate(corpus.ids)}


def documents_at(corpus: Corpus, rows: Sequence[int]) -> dict[int, Document]:
    """The documents of some rows, each read once, in the order in which they lie in the file."""
    return {row: next(corpus.documents(row, row + 1)) for row in sorted(set(rows))}


def texts_of(document: Document) -> tuple[str, str]:
    """Title and text as a pair holds them: where there is only a title it is the text."""
    title, text = document.title.strip(), document.text.strip()
    return (title, text) if text else ("", title)
