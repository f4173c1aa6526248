"""Contexts with questions and answer spans, from files in SQuAD's format or MRQA's.

SQuAD    one JSON object: {"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers":
         [{"text", "answer_start"}]}]}]}]}; questions that are marked impossible have no answers.
MRQA     JSON lines behind a header line: {"context", "qas": [{"qid", "question", "answers", "detected_answers":
         [{"text", "char_spans": [[first, last]]}]}]}, the last character included. (mrqa/MRQA-Shared-Task-2019)

Both may be gzipped.
"""

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from largede.errors import DataError

MOST_LETTERS = 2**29
"""Of what is held at once, a SQuAD file or a line of MRQA's: far above any that exist, far below a gzip bomb."""


@dataclass(frozen=True)
class Question:
    """`accepted` are the answers as texts, distinct; `starts` where in the context answers begin."""

    id: str
    text: str
    accepted: tuple[str, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Context:
    title: str
    text: str
    questions: tuple[Question, ...]


def read_contexts(path: Path) -> Iterator[Context]:
    """Every context of a file. Raises DataError naming file and place for whatever does not have one of the formats."""
    with _text(path) as stream:
        first = _line(path, stream)
        if _is_mrqa(first):
            yield from _mrqa(path, first, stream)
        else:
            whole = first + stream.read(MOST_LETTERS)
            _check_length(path, whole)
            yield from _squad(path, whole)


def _line(path: Path, stream: IO[str]) -> str:
    line = stream.readline(MOST_LETTERS + 1)
    _check_length(path, line)
    return line


def _check_length(path: Path, text: str) -> None:
    if len(text) > MOST_LETTERS:
        _refuse(path, "", f"more than {MOST_LETTERS:,} characters in one piece", "a file of questions, not of zeros")


def _is_mrqa(line: str) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and ("header" in value or "context" in value)


def _squad(path: Path, text: str) -> Iterator[Context]:
    try:
        articles = json.loads(text)["data"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        _refuse(path, "", f"no SQuAD or MRQA file ({error!r})")
    for number, article in enumerate(_listed(path, "data", articles), start=1):
        where = f"article {number}"
        title = _field(path, where, article, "title", str, "").replace("_", " ")
        paragraphs = _field(path, where, article, "paragraphs", list)
        for place, paragraph in enumerate(paragraphs, start=1):
            yield _squad_context(path, f"{where}, paragraph {place}", title, paragraph)


def _squad_context(path: Path, where: str, title: str, paragraph: Any) -> Context:
    text = _field(path, where, paragraph, "context", str)
    questions = []
    for record in _field(path, where, paragraph, "qas", list):
        id_ = _id(path, where, _field(path, where, record, "id", str))
        answers = _field(path, f"question {id_}", record, "answers", list, [])
        texts = [_field(path, f"question {id_}", answer, "text", str) for answer in answers]
        starts = [_field(path, f"question {id_}", answer, "answer_start", int) for answer in answers]
        # A span that is not where it is said to be says nothing about a sentence.
        right = [start for start, answer in zip(starts, texts, strict=True) if text[start:].startswith(answer)]
        questions.append(_question(path, id_, _field(path, where, record, "question", str), texts, right))
    return Context(title, text, tuple(questions))


def _mrqa(path: Path, first: str, stream: IO[str]) -> Iterator[Context]:
    yield from _mrqa_context(path, 1, first)
    number = 1
    while line := _line(path, stream):
        number += 1
        yield from _mrqa_context(path, number, line)


def _mrqa_context(path: Path, number: int, line: str) -> Iterator[Context]:
    where = f"line {number}"
    if not line.strip():
        return
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        _refuse(path, where, f"bad JSON ({error})")
    if isinstance(record, dict) and "header" in record:
        return
    text = _field(path, where, record, "context", str)
    questions = []
    for asked in _field(path, where, record, "qas", list):
        id_ = _id(path, where, _field(path, where, asked, "qid", str))
        accepted = [str(answer) for answer in _field(path, f"question {id_}", asked, "answers", list, [])]
        detected = _field(path, f"question {id_}", asked, "detected_answers", list, [])
        spans = [
            span for answer in detected for span in _field(path, f"question {id_}", answer, "char_spans", list, [])
        ]
        starts = [span[0] for span in spans if isinstance(span, list) and span and 0 <= span[0] < len(text)]
        texts = accepted or [_field(path, f"question {id_}", answer, "text", str) for answer in detected]
        questions.append(_question(path, id_, _field(path, where, asked, "question", str), texts, starts))
    yield Context("", text, tuple(questions))


def _question(path: Path, id_: str, text: str, answers: Sequence[str], starts: Sequence[int]) -> Question:
    if not text.strip():
        _refuse(path, f"question {id_}", "no text")
    accepted = tuple(dict.fromkeys(answer for answer in answers if answer.strip()))
    return Question(id_, " ".join(text.split()), accepted, tuple(dict.fromkeys(starts)))


def _id(path: Path, where: str, id_: str) -> str:
    if not id_ or len(id_.split()) != 1 or id_ != id_.strip():
        _refuse(path, where, f"the question id {id_!r}", "ids without white space")
    return id_


_MISSING = object()


def _field(path: Path, where: str, record: Any, name: str, kind: type, otherwise: Any = _MISSING) -> Any:
    """One field of an object, of that kind."""
    if not isinstance(record, dict):
        _refuse(path, where, f"a JSON {type(record).__name__} where an object belongs")
    value = record.get(name, otherwise)
    if not isinstance(value, kind) or isinstance(value, bool):
        _refuse(path, where, f"no {name}" if value is _MISSING else f"{name} is a {type(value).__name__}")
    return value


def _listed(path: Path, where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        _refuse(path, where, f"a JSON {type(value).__name__} where a list belongs")
    return value


@contextmanager
def _text(path: Path) -> Iterator[IO[str]]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            with gzip.open(raw) if packed else raw as plain:
                yield io.TextIOWrapper(plain, encoding="utf-8-sig")
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
            _refuse(path, "", f"cannot be read ({error})")


def _refuse(path: Path, where: str, given: str, expected: str = "SQuAD's format or MRQA's") -> NoReturn:
    raise DataError(
        f"{path}{', ' if where else ''}{where}: {given}", expected=expected, mend="correct the file, or get it again"
    )
