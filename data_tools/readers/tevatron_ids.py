"""Tevatron's newer training files, which name passages by id, together with their corpus.

A line of training data has `query_id`, `query_text` (or `query`), `positive_document_ids` and `negative_document_ids`;
a line of the corpus `docid`, `text` and perhaps `title`. Each line tells by its fields which of the two it is. Queries
and documents without text (images, films, sound) are counted and passed over.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_tools.dropped import Dropped
from data_tools.format import Format, Record
from data_tools.readers.judged import (
    Judgement,
    Role,
    join_passage,
    join_query,
    judgement_record,
    passage_record,
    query_record,
)
from data_tools.readers.labelled import (
    LabelledOptions,
    Unusable,
    an_object,
    checked_list,
    checked_text,
    json_lines,
    made_passage,
    required_id,
    required_text,
)

_COLLECTION = "tevatron"


def read(path: Path, options: LabelledOptions, dropped: Dropped) -> Iterator[Record]:
    for where, value in json_lines(path, dropped):
        try:
            record = an_object(value)
            if "docid" in record:
                yield _passage(record)
            else:
                yield from _query(record)
        except Unusable as reason:
            dropped.note(str(reason), where)


def _passage(record: Mapping[str, Any]) -> Record:
    id_ = required_id(record["docid"], "passage")
    title = checked_text(record.get("title"), "title")
    return passage_record(_COLLECTION, made_passage(id_, title, record.get("text"), "passage"))


def _query(record: Mapping[str, Any]) -> Iterator[Record]:
    if "positive_document_ids" not in record:
        raise Unusable("line with neither docid nor positive_document_ids")
    id_ = required_id(record.get("query_id"), "query")
    text = required_text(record.get("query_text", record.get("query")), "query")
    wanted = [
        Judgement(id_, required_id(passage_id, "passage"), role, (place,))
        for role in Role
        for place, passage_id in enumerate(checked_list(record.get(f"{role.name.lower()}_document_ids"), "ids"))
    ]
    yield query_record(_COLLECTION, id_, text)
    for judgement in wanted:
        yield judgement_record(_COLLECTION, judgement)


FORMAT = Format(
    "tevatron-ids",
    "Tevatron's newer training files, which name passages by id, with their corpus.",
    "largede-data pairs tevatron-ids train.jsonl corpus.jsonl --source bge --out bge",
    LabelledOptions,
    read,
    groupings=(join_passage, join_query),
    inputs="JSON lines of training data or of the corpus, plain or compressed",
)
