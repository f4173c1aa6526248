"""Tables of text: lines into columns, judgements in their layouts."""

from collections.abc import Callable, Collection, Iterator
from operator import methodcaller
from pathlib import Path

from data_tools.dropped import Dropped
from data_tools.sources import lines_of

_HEADERS = ("query-id", "query_id", "qid")


def rows(
    path: Path,
    columns: Collection[int],
    dropped: Dropped,
    split: Callable[[str], list[str]] = methodcaller("split", "\t"),
) -> Iterator[tuple[str, list[str]]]:
    """(place, columns) of each line that has one of these numbers of columns; other lines are counted."""
    for number, line in enumerate(lines_of(path), start=1):
        if line.isspace():
            continue
        where = f"{path} line {number}"
        try:
            fields = split(line.decode("utf-8-sig").rstrip("\r\n"))
        except UnicodeDecodeError:
            dropped.note("line that is not UTF-8", where)
            continue
        if len(fields) in columns:
            yield where, fields
        else:
            dropped.note(f"line of other than {' or '.join(map(str, sorted(columns)))} columns", where)


def judgements(path: Path, dropped: Dropped) -> Iterator[tuple[str, str, str, int]]:
    """(place, query id, passage id, grade): TREC's four columns, BEIR's three, or two, which mean grade 1.

    Columns lie between tabs or, on a line without one, between white space of any kind, as TREC has them. A header line
    is passed over. Lines that cannot be used are counted.
    """
    for number, (where, fields) in enumerate(rows(path, (2, 3, 4), dropped, _columns)):
        if number == 0 and fields[0].strip().lower() in _HEADERS:
            continue
        query_id = fields[0].strip()
        passage_id = fields[2 if len(fields) == 4 else 1].strip()
        try:
            grade = int(fields[-1]) if len(fields) > 2 else 1
        except ValueError:
            dropped.note("judgement whose grade is no whole number", where)
            continue
        if query_id and passage_id:
            yield where, query_id, passage_id, grade
        else:
            dropped.note("judgement without a query id or a passage id", where)


def _columns(line: str) -> list[str]:
    # Ids with blanks are possible between tabs.
    return line.split("\t") if "\t" in line else line.split()
