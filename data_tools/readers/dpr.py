"""DPR's JSON (Natural Questions, TriviaQA and others), one array of gigabytes or one object on each line.

An object has `question`, `positive_ctxs`, `hard_negative_ctxs` and `negative_ctxs`: lists of passages with `title`,
`text` and `passage_id` (or `psg_id`). `answers` and scores are not used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.dropped import Dropped
from data_tools.format import Format, option
from data_tools.readers.json_array import array_items
from data_tools.readers.labelled import (
    LabelledOptions,
    Query,
    Unusable,
    an_object,
    checked_id,
    checked_list,
    json_lines,
    pairs_of_query,
    passages_of,
    required_text,
    source_of,
)
from data_tools.sources import opened
from largede.streams.pair import Pair

_ID_FIELDS = ("passage_id", "psg_id")


@dataclass(frozen=True)
class DprOptions(LabelledOptions):
    easy_negatives: bool = option(False, "passages of negative_ctxs as well, behind those of hard_negative_ctxs")


def read(path: Path, options: DprOptions, dropped: Dropped) -> Iterator[Pair]:
    source = options.source or source_of(path)
    for where, value in _records(path, dropped):
        try:
            yield from _pairs(value, source, options, where, dropped)
        except Unusable as reason:
            dropped.note(str(reason), where)


def _records(path: Path, dropped: Dropped) -> Iterator[tuple[str, Any]]:
    with opened(path) as stream:
        # Enough to see whether the document is an array; its lines may be of any length.
        start = stream.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start.startswith(b"["):
        yield from json_lines(path, dropped)
        return
    with opened(path) as stream:
        for number, value in enumerate(array_items(stream, path), start=1):
            yield f"{path} item {number}", value


def _pairs(value: Any, source: str, options: DprOptions, where: str, dropped: Dropped) -> Iterator[Pair]:
    record = an_object(value)
    query = Query(
        required_text(record.get("question"), "query"), checked_id(record.get("id"), "query id"), source=source
    )
    kinds = {"positive_ctxs": "positive", "hard_negative_ctxs": "negative", "negative_ctxs": "negative"}
    if not options.easy_negatives:
        del kinds["negative_ctxs"]
    positives, *negatives = (
        passages_of(checked_list(record.get(field), f"{name}s"), name, where, dropped, _ID_FIELDS)
        for field, name in kinds.items()
    )
    wrong = [passage for listed in negatives for passage in listed]
    yield from pairs_of_query(query, positives, wrong, options, where, dropped)


FORMAT = Format(
    "dpr",
    "DPR's training files (Natural Questions, TriviaQA): passages with hard negatives.",
    "largede-data pairs dpr biencoder-nq-train.json.gz --source nq --out nq",
    DprOptions,
    read,
    inputs="one JSON array or JSON lines, plain or compressed",
)
