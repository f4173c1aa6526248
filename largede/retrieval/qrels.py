"""Judgements in either of the two forms that are published: trec_eval's four columns, and BEIR's three with tabs."""

from pathlib import Path

from largede.errors import DataError
from largede.retrieval.corpus import CONTROL, Qrels

_HEADERS = ("query-id", "query_id", "qid")


def read_qrels(path: Path) -> Qrels:
    """Judgements that stand alone, without the queries and documents they name.

    Lines are `query 0 document grade` or `query document grade`; all must be of one form. Blank lines, lines that
    begin with # and a header of BEIR's are passed over.
    Raises DataError naming file and line: missing, another number of columns, a grade that is no integer, a pair
    judged twice, no judgement at all.
    """
    if not path.is_file():
        raise DataError(f"there is no qrels file {path}", expected="judgements", mend="check the path")
    qrels: Qrels = {}
    columns = 0
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            fields = line.split()
            if not fields or fields[0].startswith("#") or (number == 1 and fields[0] in _HEADERS):
                continue
            columns = columns or len(fields)
            query, document, grade = _judgement(path, number, fields, columns)
            if CONTROL.search(query + document):
                raise _bad_line(path, number, f"{query!r} and {document!r}", "ids without control characters")
            if document in qrels.setdefault(query, {}):
                raise _bad_line(path, number, f"{query!r} and {document!r} judged twice", "one line for each pair")
            qrels[query][document] = grade
    if not qrels:
        raise DataError(
            f"{path} holds no judgement", expected="lines `query 0 document grade`", mend="check how it was made"
        )
    return qrels


def _judgement(path: Path, number: int, fields: list[str], columns: int) -> tuple[str, str, int]:
    if len(fields) != columns or columns not in (3, 4):
        expected = f"{columns}, as in the lines before" if columns in (3, 4) else "query 0 document grade"
        raise _bad_line(path, number, f"{len(fields)} columns", expected)
    try:
        return fields[0], fields[-2], int(fields[-1])
    except ValueError:
        raise _bad_line(path, number, f"the grade {fields[-1]!r}", "an integer") from None


def _bad_line(path: Path, number: int, given: str, expected: str) -> DataError:
    return DataError(f"{path}, line {number}: {given}", expected=expected, mend="correct or remove that line")
