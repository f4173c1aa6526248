"""Tevatron's training files with the passages inside.

One JSON object on each line: `query_id`, `query` (or `query_text`), `positive_passages` and `negative_passages`, lists
of objects with `docid`, `title` and `text`. Newer files name passages of a corpus by id (`positive_document_ids`)
instead; those are read by `tevatron-ids` together with their corpus.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_tools.dropped import Dropped
from data_tools.format import Format
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
from largede.streams.pair import Pair


def read(path: Path, options: LabelledOptions, dropped: Dropped) -> Iterator[Pair]:
    source = options.source or source_of(path)
    for where, value in json_lines(path, dropped):
        try:
            yield from _pairs(an_object(value), source, options, where, dropped)
        except Unusable as reason:
            dropped.note(str(reason), where)


def _pairs(
    record: Mapping[str, Any], source: str, options: LabelledOptions, where: str, dropped: Dropped
) -> Iterator[Pair]:
    if "positive_passages" not in record and "positive_document_ids" in record:
        raise Unusable("passages named by id, not given (read with tevatron-ids and the corpus)")
    text = required_text(record.get("query", record.get("query_text")), "query")
    query = Query(text, checked_id(record.get("query_id"), "query id"), source=source)
    positives, negatives = (
        passages_of(checked_list(record.get(f"{name}_passages"), f"{name}s"), name, where, dropped, ("docid",))
        for name in ("positive", "negative")
    )
    yield from pairs_of_query(query, positives, negatives, options, where, dropped)


FORMAT = Format(
    "tevatron",
    "Tevatron's training files with the passages inside.",
    "largede-data pairs tevatron nq-train.jsonl.gz --out nq",
    LabelledOptions,
    read,
    inputs="JSON lines, plain or compressed",
)
