"""Files in SQuAD's or MRQA's format as BEIR folders: whole contexts as passages, or their sentences as candidates.

Sentences are the task of MultiReQA (Guo et al. 2020): given a question, find the sentence that answers it among all
sentences of all contexts. The sentence in which an answer begins is a positive; several gold answers make several.
"""

import json
import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from largede.errors import DataError
from largede.evaluation.datasets.sentences import sentence_spans
from largede.evaluation.datasets.squad_format import Question, read_contexts
from largede.files import writing

CONVERTER = 1
"""Raised when the same file would become another folder: what was made before is then made again."""

_MARKS = re.compile(r"\[(?:TLE|DOC|PAR|SEP)\]")


def write_squad_passages(source: Path, folder: Path) -> dict[str, int]:
    """Distinct contexts as the corpus; the answers in queries.jsonl, and each question's context in qrels/test.tsv.

    Gives counts. Raises DataError when no question has an answer, or a question id occurs twice.
    """
    with _Writer(source, folder) as out:
        for context in read_contexts(source):
            passage = out.candidate(_plain(context.text), context.title)
            for question in context.questions:
                if question.accepted and passage is not None:
                    out.ask(question, [passage])
                else:
                    out.left_out += 1
    return out.counts("passages")


def write_sentences(source: Path, folder: Path) -> dict[str, int]:
    """Distinct sentences as the corpus, those with the answers in qrels/test.tsv. Gives and raises likewise."""
    with _Writer(source, folder) as out:
        for context in read_contexts(source):
            spans = sentence_spans(context.text)
            ids = [out.candidate(_plain(context.text[start:end])) for start, end in spans]
            for question in context.questions:
                positives = {_at(start, spans): None for start in question.starts}
                relevant = [id_ for place in positives if place is not None and (id_ := ids[place])]
                if relevant:
                    out.ask(question, relevant)
                else:
                    out.left_out += 1
    return out.counts("sentences")


def _at(start: int, spans: Iterable[tuple[int, int]]) -> int | None:
    return next((place for place, (first, last) in enumerate(spans) if first <= start < last), None)


def _plain(text: str) -> str:
    return " ".join(_MARKS.sub(" ", text).split())


class _Writer:
    """The three files of a folder in BEIR format, written as contexts come. Equal texts are one candidate."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.left_out = 0
        self._source = source
        self._folder = folder
        self._files = ExitStack()
        self._ids: dict[tuple[str, str], str] = {}
        self._asked: set[str] = set()

    def __enter__(self) -> "_Writer":
        names = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
        self._corpus, self._queries, self._qrels = (
            self._files.enter_context(writing(self._folder / name)) for name in names
        )
        self._qrels.write(b"query-id\tcorpus-id\tscore\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def candidate(self, text: str, title: str = "") -> str | None:
        """The id of a text, written if it is new; None for a text without any sign."""
        if not text:
            return None
        if (title, text) not in self._ids:
            self._ids[title, text] = id_ = f"c{len(self._ids)}"
            _write(self._corpus, {"_id": id_, "title": title, "text": text})
        return self._ids[title, text]

    def ask(self, question: Question, relevant: Iterable[str]) -> None:
        if question.id in self._asked:
            raise DataError(
                f"{self._source}: the question id {question.id!r} occurs twice",
                expected="ids that occur once",
                mend="correct the file, or get it again",
            )
        self._asked.add(question.id)
        _write(
            self._queries,
            {"_id": question.id, "text": question.text, "metadata": {"answers": list(question.accepted)}},
        )
        for id_ in dict.fromkeys(relevant):
            self._qrels.write(f"{question.id}\t{id_}\t1\n".encode())

    def counts(self, noun: str) -> dict[str, int]:
        if not self._asked:
            raise DataError(
                f"{self._source} has no question with an answer in its context",
                expected="questions with answers",
                mend="name a file with answers, such as a dev file",
            )
        return {noun: len(self._ids), "questions": len(self._asked), "questions left out": self.left_out}


def _write(stream: IO[bytes], record: dict[str, Any]) -> None:
    stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
