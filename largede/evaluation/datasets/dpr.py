"""DPR's files for open-domain question answering as BEIR files: the passages of Wikipedia, and questions with answers.

`psgs_w100.tsv.gz` has the columns id, text, title, quoted as CSV is; `*.qa.csv` has two columns between tabs: the
question, and its answers as a Python list of strings. (Karpukhin et al. 2020; facebookresearch/DPR.)
"""

import ast
import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from largede.errors import DataError
from largede.files import writing
from largede.retrieval.progress import Progress

_HEADER = ["id", "text", "title"]
_LINES_AT_ONCE = 10_000


def write_passages(source: Path, out: Path, total: int | None = None) -> int:
    """Write the corpus of a passages file, one passage at a time; gives how many there were.

    Raises DataError naming file and line: other columns, no id, a damaged gzip file, no passage at all.
    """
    written = 0
    progress = Progress(total or 0, "passages", prefix=f"{source.name}: ")
    with writing(out) as stream:
        for number, row in _rows(source):
            if number == 1 and row == _HEADER:
                continue
            if len(row) != 3 or not row[0].strip():
                _refuse(source, number, f"{len(row)} columns", "id, text and title between tabs")
            passage = {"_id": row[0].strip(), "title": row[2], "text": row[1]}
            stream.write(json.dumps(passage, ensure_ascii=False).encode() + b"\n")
            written += 1
            if written % _LINES_AT_ONCE == 0:
                progress.add(_LINES_AT_ONCE)
        if not written:
            _refuse(source, 1, "no passage", "id, text and title between tabs")
    return written


def write_answered_queries(source: Path, out: Path, prefix: str) -> int:
    """Write the queries of a question file, with ids `prefix-0`, `prefix-1` ...; gives how many there were.

    Raises DataError naming file and line: not two columns, no question, answers that are no list of strings.
    """
    written = 0
    with writing(out) as stream:
        for number, row in _rows(source):
            if len(row) != 2 or not row[0].strip():
                _refuse(source, number, f"{len(row)} columns", "a question and its answers between tabs")
            answers = _answers(source, number, row[1])
            query = {"_id": f"{prefix}-{written}", "text": row[0], "metadata": {"answers": answers}}
            stream.write(json.dumps(query, ensure_ascii=False).encode() + b"\n")
            written += 1
        if not written:
            _refuse(source, 1, "no question", "a question and its answers between tabs")
    return written


def _answers(source: Path, number: int, written: str) -> list[str]:
    """The list that stands there as Python writes it: read as data, not run."""
    try:
        found = ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(answer, str) for answer in found) or not any(found):
        _refuse(source, number, f"the answers {written[:80]!r}", "a list of strings as Python writes it")
    return found


def _rows(source: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows between tabs with the number of the line where they end."""
    with _text(source) as stream:
        reader = csv.reader(stream, delimiter="\t")
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError, EOFError, OSError) as error:
            _refuse(source, reader.line_num + 1, f"cannot be read ({error})", "UTF-8 text between tabs")


@contextmanager
def _text(source: Path) -> Iterator[IO[str]]:
    with source.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with gzip.open(raw) if packed else raw as plain:
            yield io.TextIOWrapper(plain, encoding="utf-8", newline="")


def _refuse(source: Path, number: int, given: str, expected: str) -> NoReturn:
    raise DataError(
        f"{source}, line {number}: {given}", expected=expected, mend="get the file again from where it was published"
    )
