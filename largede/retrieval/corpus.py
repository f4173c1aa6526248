"""BEIR-format folders, checked once at the edge: `corpus.jsonl`, `queries.jsonl`, `qrels/{split}.tsv`.

The corpus is never in memory as a whole: opening it takes one pass that keeps the ids (as bytes) and where each line
starts, and every later read seeks to the lines it needs. What the pass over a large corpus found is kept for the next
command (`kept_corpora`).
"""

import hashlib
import json
import re
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from largede.errors import DataError
from largede.retrieval import kept_corpora
from largede.retrieval.document_ids import DocumentIds
from largede.text import passage_text, whole

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""trec_eval, written in C, takes what follows the first of them for absent."""
_IDS_AT_ONCE = 10_000

Qrels = dict[str, dict[str, int]]
"""Query id to document id to grade; a grade above zero means relevant."""


@dataclass(frozen=True)
class Document:
    id: str
    title: str
    text: str

    @property
    def contents(self) -> str:
        return passage_text(self.title, self.text)


@dataclass(frozen=True)
class Corpus:
    """A checked corpus. `starts[i]` is the byte where the line of `ids[i]` begins; the last is the end of the file."""

    path: Path
    ids: DocumentIds
    starts: Sequence[int] | np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.ids)

    def documents(self, first: int = 0, last: int | None = None) -> Iterator[Document]:
        """Documents of rows first to last (exclusive), read as they are asked for."""
        return self.at(range(first, len(self) if last is None else min(last, len(self))))

    def at(self, rows: Iterable[int]) -> Iterator[Document]:
        """Documents of these rows, in this order, read as they are asked for."""
        with self.path.open("rb") as stream:
            for row in rows:
                stream.seek(self.starts[row])
                yield self._document(row, stream.read(self.starts[row + 1] - self.starts[row]))

    def lookup(self, wanted: Collection[str]) -> dict[str, Document]:
        """The named documents that exist, by id."""
        return {found.id: found for found in self.at(self.ids.rows_of(wanted).values())}

    def _document(self, row: int, line: bytes) -> Document:
        try:
            fields = json.loads(line)
            document = Document(fields["_id"], whole(fields.get("title") or ""), whole(fields.get("text") or ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            document = None
        if document is None or document.id != self.ids[row]:
            raise DataError(
                f"{self.path} changed while it was being read (document {self.ids[row]!r})",
                expected="a corpus that stays as it was when the command started",
                mend="run the command again",
            )
        return document


@dataclass(frozen=True)
class Benchmark:
    """One split of one collection: its corpus, the queries that the split judges, and their judgements.

    Texts are cut at the lengths. Where answers are looked for in the passages that were found, `qrels` is empty.
    """

    name: str
    split: str
    corpus: Corpus
    queries: dict[str, str]
    qrels: Qrels
    max_query_tokens: int = 64
    max_passage_tokens: int = 512

    @property
    def fingerprint(self) -> str:
        """Of everything that figures depend on: corpus, query texts and judgements."""
        rest = json.dumps([self.queries, self.qrels], sort_keys=True).encode()
        return hashlib.sha256(self.corpus.fingerprint.encode() + rest).hexdigest()


def open_corpus(path: Path) -> Corpus:
    """Check a `corpus.jsonl`, or the one inside a folder.

    Raises DataError naming file and line: missing, bad JSON, no or unusable `_id`, duplicate id, no `text`,
    `text` or `title` that is no string, no document at all.
    """
    path = path / "corpus.jsonl" if path.is_dir() else path
    kept = kept_corpora.read(path)
    if kept is not None:
        return Corpus(path, kept.ids, kept.starts, kept.fingerprint)
    corpus = _check_corpus(path)
    kept_corpora.keep(path, kept_corpora.Kept(corpus.ids, np.asarray(corpus.starts), corpus.fingerprint))
    return corpus


def _check_corpus(path: Path) -> Corpus:
    """One pass over every line."""
    ids, block = DocumentIds(), list[str]()
    starts, hashes = array("q"), array("Q")
    digest = hashlib.sha256()

    def keep(start: int, line: bytes, number: int, fields: dict[str, Any]) -> None:
        block.append(_id_of(path, number, fields))
        hashes.append(xxhash.xxh3_64_intdigest(block[-1].encode()))
        if len(block) == _IDS_AT_ONCE:
            ids.append(block)
            block.clear()
        starts.append(start)
        digest.update(line)
        _check_texts(path, number, fields)

    end = _read_jsonl(path, keep)
    starts.append(end)
    ids.append(block)
    # The set of all names would need more memory than everything else: only those whose hashes meet are compared.
    value_N, count_N = np.unique(np.frombuffer(hashes, dtype=np.uint64), return_counts=True)
    met = set(value_N[count_N > 1].tolist())
    rows = [row for row, value in enumerate(hashes) if value in met] if met else []
    _check_unique(path, [ids[row] for row in rows])
    return Corpus(path, ids, starts, digest.hexdigest())


def _check_texts(path: Path, number: int, fields: dict[str, Any]) -> None:
    """`title` may be left out or null; `text` has to be there, and may be empty."""
    if not isinstance(fields.get("title") or "", str):
        raise _bad_line(path, number, f"title is a {type(fields['title']).__name__}", "title to be a string")
    if not isinstance(fields.get("text"), str):
        given = f"text is a {type(fields['text']).__name__}" if fields.get("text") is not None else "no text"
        raise _bad_line(path, number, given, "text to be a string, which may be empty")


def open_queries(path: Path) -> dict[str, str]:
    """Query id to text, in file order. Raises DataError as `open_corpus` does, and for a query without text."""
    ids: list[str] = []
    texts: list[str] = []

    def keep(start: int, line: bytes, number: int, fields: dict[str, Any]) -> None:
        text = fields.get("text")
        if not isinstance(text, str) or not text.strip():
            raise _bad_line(path, number, "a query without text", "`text` to be a string that is not empty")
        ids.append(_id_of(path, number, fields))
        texts.append(whole(text))

    _read_jsonl(path, keep)
    _check_unique(path, ids)
    return dict(zip(ids, texts, strict=True))


def open_qrels(path: Path, queries: Collection[str], documents: Iterable[str]) -> Qrels:
    """Judgements of one split; the header line is optional. `documents` are gone through once.

    Raises DataError naming file and line: missing, not three columns, a grade that is no integer, an unknown query or
    document, a pair judged twice, no judgement at all.
    """
    qrels: Qrels = {}
    first_line: dict[str, int] = {}
    for number, line in enumerate(_text_lines(path), start=1):
        fields = line.split("\t")
        if not line.strip() or (number == 1 and fields[0] in ("query-id", "query_id", "qid")):
            continue
        query, document, grade = _judgement(path, number, fields)
        if query not in queries:
            raise _bad_line(path, number, f"unknown query {query!r}", "a query id of queries.jsonl")
        if document in qrels.setdefault(query, {}):
            raise _bad_line(path, number, f"{query!r} and {document!r} judged twice", "one line for each pair")
        qrels[query][document] = grade
        first_line.setdefault(document, number)
    known = {id_ for id_ in documents if id_ in first_line}
    for document, number in first_line.items():
        if document not in known:
            raise _bad_line(path, number, f"unknown document {document!r}", "a document id of corpus.jsonl")
    if not qrels:
        raise DataError(
            f"{path} holds no judgement",
            expected="lines `query-id<TAB>corpus-id<TAB>score`",
            mend="fill it or choose another split",
        )
    return qrels


def open_benchmark(folder: Path, split: str, corpus: Corpus | None = None) -> Benchmark:
    """Check one split of a BEIR-format folder; `corpus` saves the pass over a corpus that is open already."""
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}",
            expected="a folder in BEIR format",
            mend="give the folder that holds corpus.jsonl, queries.jsonl and qrels/",
        )
    qrels_path = folder / "qrels" / f"{split}.tsv"
    if not qrels_path.is_file():
        found = ", ".join(sorted(p.stem for p in folder.glob("qrels/*.tsv"))) or "none"
        raise DataError(
            f"{folder} has no qrels/{split}.tsv",
            expected=f"one of its splits (there are: {found})",
            mend="name one of them with --split",
        )
    corpus = corpus or open_corpus(folder)
    queries = open_queries(folder / "queries.jsonl")
    qrels = open_qrels(qrels_path, queries, corpus.ids)
    judged = {id_: text for id_, text in queries.items() if id_ in qrels}
    return Benchmark(folder.resolve().name, split, corpus, judged, qrels)


def _read_jsonl(path: Path, keep: Callable[[int, bytes, int, dict[str, Any]], None]) -> int:
    """Call keep(start byte, line, line number, object) for each line that is not blank; give the file's length."""
    if not path.is_file():
        raise DataError(f"there is no file {path}", expected="a file of JSON lines", mend="check the path of the data")
    start, found = 0, False
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                found = True
                keep(start, line, number, _json_object(path, number, line))
            start += len(line)
    if not found:
        raise DataError(f"{path} is empty", expected="at least one JSON line", mend="check how it was made")
    return start


def _json_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _bad_line(path, number, f"bad JSON ({error})", "one JSON object on each line") from error
    if not isinstance(value, dict):
        raise _bad_line(path, number, f"a JSON {type(value).__name__}", "one JSON object on each line")
    return value


def _id_of(path: Path, number: int, fields: dict[str, Any]) -> str:
    """The `_id`. White space in it would break the columns of a TREC run file, # before it make a line a comment."""
    id_ = fields.get("_id")
    if not isinstance(id_, str) or len(id_.split()) != 1 or id_ != id_.strip() or id_ != whole(id_):
        raise _bad_line(path, number, f"_id {id_!r}", "`_id` to be a string without white space")
    if id_.startswith("#") or CONTROL.search(id_):
        raise _bad_line(path, number, f"_id {id_!r}", "`_id` to be free of control characters, and not to begin with #")
    return id_


def _check_unique(path: Path, ids: Sequence[str]) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    for id_ in ids:
        if id_ in seen:
            raise DataError(
                f"{path} has the id {id_!r} twice", expected="ids that occur once", mend="remove duplicates"
            )
        seen.add(id_)


def _text_lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"there is no file {path}", expected="judgements as TSV", mend="check the path of the data")
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error})", expected="UTF-8 text", mend="convert the file") from error


def _judgement(path: Path, number: int, fields: list[str]) -> tuple[str, str, int]:
    if len(fields) != 3:
        raise _bad_line(path, number, f"{len(fields)} columns", "query-id, corpus-id and score between tabs")
    try:
        return fields[0].strip(), fields[1].strip(), int(fields[2])
    except ValueError as error:
        raise _bad_line(path, number, f"the score {fields[2]!r}", "an integer grade") from error


def _bad_line(path: Path, number: int, given: str, expected: str) -> DataError:
    return DataError(f"{path}, line {number}: {given}", expected=expected, mend="correct or remove that line")
