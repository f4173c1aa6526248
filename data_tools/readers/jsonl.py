"""Plain JSON lines, one object each, with fields of any names."""

from collections.abc import Iterator
from pathlib import Path

from data_tools.dropped import Dropped
from data_tools.format import Format
from data_tools.readers.fields import FieldOptions, pairs_of_record
from data_tools.readers.labelled import Unusable, an_object, json_lines, source_of
from largede.streams.pair import Pair


def read(path: Path, options: FieldOptions, dropped: Dropped) -> Iterator[Pair]:
    source = source_of(path)
    for where, value in json_lines(path, dropped):
        try:
            yield from pairs_of_record(an_object(value), options, source, where, dropped)
        except Unusable as reason:
            dropped.note(str(reason), where)


FORMAT = Format(
    "jsonl",
    "Plain JSON lines, one object each, with fields of any names.",
    "largede-data pairs jsonl nq.jsonl.gz --positive-field answer --out nq",
    FieldOptions,
    read,
    inputs="JSON lines, plain or compressed",
)
