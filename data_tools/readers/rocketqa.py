"""RocketQA's training files with the texts inside, between tabs, in the two published layouts:

- dual encoder: query, title of the positive, positive, title of the negative, negative, 0;
- cross encoder and joint training (RocketQAv2): query, title, passage, label, 1 for a positive and 0 for a negative.

A line holds one negative of a query, or one passage; all lines of a query, wherever they stand, make its pairs. Titles
may be empty, or "-". RocketQA's corpora (para.txt, qrels.train.tsv and so on) are read by `msmarco`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgpack

from data_tools.dropped import Dropped
from data_tools.format import Format, Record
from data_tools.readers.judged import Role
from data_tools.readers.labelled import (
    LabelledOptions,
    Passage,
    Query,
    Unusable,
    made_passage,
    pairs_of_query,
    required_text,
    source_of,
)
from data_tools.readers.tables import rows
from data_tools.sources import lines_of
from largede.errors import DataError
from largede.streams.pair import Pair

_DUAL, _CROSS = 6, 4


def read(path: Path, options: LabelledOptions, dropped: Dropped) -> Iterator[Record]:
    """The passages of each line under its query. Raises DataError for a file of another layout."""
    columns = _layout(path)
    source = options.source or source_of(path)
    for where, (query, *fields, label) in rows(path, (columns,), dropped):
        try:
            text = required_text(query, "query")
            found = _of_dual(fields, label) if columns == _DUAL else _of_cross(fields, label)
        except Unusable as reason:
            dropped.note(str(reason), where)
            continue
        yield msgpack.packb((source, text)), msgpack.packb([(int(role), p.title, p.text) for role, p in found])


def pairs_of(key: bytes, group: Sequence[bytes], options: LabelledOptions, dropped: Dropped) -> Iterator[Pair]:
    source, text = msgpack.unpackb(key)
    # Each line of a query repeats its positive: repetitions are no faults here.
    passages = dict.fromkeys(tuple(row) for record in group for row in msgpack.unpackb(record))
    positives, negatives = ([Passage("", *rest) for role, *rest in passages if role == wanted] for wanted in Role)
    where = f"{source} query {text!r}"
    yield from pairs_of_query(Query(text, source=source), positives, negatives, options, where, dropped)


def _layout(path: Path) -> int:
    """The number of columns, told by the first line."""
    first = next((line for line in lines_of(path) if not line.isspace()), b"")
    columns = first.count(b"\t") + 1
    label = first.rstrip(b"\r\n").rpartition(b"\t")[2]
    if columns not in (_DUAL, _CROSS) or label not in (b"0", b"1"):
        raise DataError(
            f"{path} has {columns} columns, the last one {label[:20]!r}",
            expected="query, title, positive, title, negative, 0 or query, title, passage, label (0 or 1) between tabs",
            mend="choose the format that the file has; para.txt, qrels and queries are read by msmarco",
        )
    return columns


def _of_dual(fields: Sequence[str], label: str) -> list[tuple[Role, Passage]]:
    if label != "0":
        raise Unusable("label that is not 0")
    title, positive, other_title, negative = fields
    return [
        (Role.POSITIVE, _passage(title, positive, "positive")),
        (Role.NEGATIVE, _passage(other_title, negative, "negative")),
    ]


def _of_cross(fields: Sequence[str], label: str) -> list[tuple[Role, Passage]]:
    if label not in ("0", "1"):
        raise Unusable("label that is neither 0 nor 1")
    title, text = fields
    role = Role.POSITIVE if label == "1" else Role.NEGATIVE
    return [(role, _passage(title, text, role.name.lower()))]


def _passage(title: str, text: str, name: str) -> Passage:
    return made_passage("", "" if title.strip() == "-" else title.strip(), text, name)


FORMAT = Format(
    "rocketqa",
    "RocketQA's denoised hard negatives and RocketQAv2's lists, with the texts inside.",
    "largede-data pairs rocketqa marco_de1_denoise.tsv --source marco --out marco",
    LabelledOptions,
    read,
    groupings=(pairs_of,),
    inputs="lines between tabs, plain or compressed",
)
