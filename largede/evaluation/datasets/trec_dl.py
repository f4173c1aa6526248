"""The TREC Deep Learning track's passage task as BEIR files: queries `id<TAB>text`, qrels `query 0 document grade`."""

import gzip
import json
from pathlib import Path
from typing import NoReturn

from largede.errors import DataError
from largede.files import write_text, writing


def write_trec_queries(
    queries: Path, qrels: Path, out: Path, *, also: Path | None = None, also_split: str | None = None
) -> None:
    """Write queries.jsonl and qrels/test.tsv; with `also`, the split of that name of another folder beside them.

    Raises DataError naming file and line for lines of another form, and for a judged query that has no text.
    """
    texts = _queries(queries)
    judged = _judged(qrels)
    unknown = [query for query, _, _ in judged if query not in texts]
    if unknown:
        _refuse(qrels, 0, f"the judged query {unknown[0]!r} is not in {queries.name}", "judgements of these queries")
    _write_qrels(out / "qrels" / "test.tsv", judged)
    if also is not None and also_split is not None:
        others = (also / "qrels" / f"{also_split}.tsv").read_text(encoding="utf-8")
        write_text(out / "qrels" / f"{also_split}.tsv", others)
        texts = _texts_of(also / "queries.jsonl", {line.split("\t")[0] for line in others.splitlines()}) | texts
    with writing(out / "queries.jsonl") as stream:
        for id_, text in texts.items():
            stream.write(json.dumps({"_id": id_, "text": text}, ensure_ascii=False).encode() + b"\n")


def _queries(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        id_, _, text = line.partition("\t")
        if not id_.strip() or not text.strip():
            _refuse(path, number, repr(line[:80]), "a query id and its text between tabs")
        found[id_.strip()] = text.strip()
    return found


def _judged(path: Path) -> list[tuple[str, str, int]]:
    found = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            query, _, document, grade = line.split()
            found.append((query, document, int(grade)))
        except ValueError:
            _refuse(path, number, repr(line[:80]), "query, 0, document and grade")
    if not found:
        _refuse(path, 1, "no judgement", "query, 0, document and grade")
    return found


def _write_qrels(path: Path, judged: list[tuple[str, str, int]]) -> None:
    lines = [f"{query}\t{document}\t{grade}\n" for query, document, grade in judged]
    write_text(path, "query-id\tcorpus-id\tscore\n" + "".join(lines))


def _texts_of(path: Path, wanted: set[str]) -> dict[str, str]:
    with path.open(encoding="utf-8") as stream:
        records = (json.loads(line) for line in stream if line.strip())
        return {record["_id"]: record["text"] for record in records if record["_id"] in wanted}


def _lines(path: Path) -> list[str]:
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        _refuse(path, 1, f"cannot be read ({error})", "UTF-8 text")
    return [line for line in text.splitlines() if line.strip()]


def _refuse(path: Path, number: int, given: str, expected: str) -> NoReturn:
    raise DataError(
        f"{path}, line {number}: {given}", expected=expected, mend="get the file again from where it was published"
    )
