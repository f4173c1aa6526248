"""Pairs out of records whose fields have any names: what plain JSON lines and Parquet share."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_tools.dropped import Dropped
from data_tools.format import option
from data_tools.readers.labelled import (
    LabelledOptions,
    Passage,
    Query,
    Unusable,
    checked_id,
    checked_list,
    checked_text,
    made_passage,
    pairs_of_query,
    passage_of,
    passages_of,
    required_text,
)
from largede.streams.pair import Pair
from largede.text import passage_text


@dataclass(frozen=True)
class FieldOptions(LabelledOptions):
    """The name of the field that holds each part of a pair; the defaults are those of largede's own pairs.

    The positive is a text, whose title and id have fields of their own, or an object with `text`, `title` and `id`, or
    a list of such texts and objects. Negatives may be spread over several fields, each of one passage or of a list.
    """

    query_field: str = option("query", "field of the query")
    positive_field: str = option("positive", "field of the positive")
    title_field: str = option("title", "field of the title of the positive")
    negatives_field: str = option("negatives", "field of the negatives; several names between commas")
    other_positives_field: str = option("other_positives", "field of the further right answers")
    query_id_field: str = option("query_id", "field of the id of the query")
    positive_id_field: str = option("positive_id", "field of the id of the positive")
    group_field: str = option("group", "field of the article or thread of the pair")
    source_field: str = option("source", "field of the name of the data set; --source where a record has none")
    score_field: str = option("score", "field of the score of the positive")

    @property
    def negatives(self) -> Sequence[str]:
        return [name.strip() for name in self.negatives_field.split(",")]

    @property
    def names(self) -> tuple[str, ...]:
        """Every field that is looked at."""
        ids = (self.query_id_field, self.positive_id_field, self.group_field, self.source_field)
        passages = (self.title_field, *self.negatives, self.other_positives_field)
        return (self.query_field, self.positive_field, *passages, *ids, self.score_field)


def pairs_of_record(
    record: Mapping[str, Any], options: FieldOptions, source: str, where: str, dropped: Dropped
) -> Iterator[Pair]:
    """The pairs of one record, `source` being the name of its file. Raises Unusable."""
    query = Query(
        required_text(record.get(options.query_field), "query"),
        checked_id(record.get(options.query_id_field), "query id"),
        checked_id(record.get(options.group_field), "group"),
        checked_text(record.get(options.source_field), "source") or options.source or source,
        _score(record.get(options.score_field)),
        _other_positives(record.get(options.other_positives_field), where, dropped),
    )
    positives = _positives(record, options, where, dropped)
    wrong = [value for name in options.negatives for value in _listed(record.get(name), "negatives")]
    negatives = passages_of(wrong, "negative", where, dropped)
    yield from pairs_of_query(query, positives, negatives, options, where, dropped)


def _positives(record: Mapping[str, Any], options: FieldOptions, where: str, dropped: Dropped) -> Sequence[Passage]:
    value = record.get(options.positive_field)
    if isinstance(value, list):
        return passages_of(value, "positive", where, dropped)
    if isinstance(value, dict):
        return [passage_of(value, "positive")]
    title = checked_text(record.get(options.title_field), "title")
    id_ = checked_id(record.get(options.positive_id_field), "positive id")
    return [made_passage(id_, title, required_text(value, "positive"), "positive")]


def _listed(value: Any, name: str) -> Sequence[Any]:
    return [value] if isinstance(value, str | dict) else checked_list(value, name)


def _other_positives(value: Any, where: str, dropped: Dropped) -> tuple[str, ...]:
    """Names of further right answers: ids or texts, or objects that have an id, a text or both."""
    names: list[str] = []
    for item in _listed(value, "other positives"):
        try:
            record = item if isinstance(item, dict) else {"id": item}
            title, text = (checked_text(record.get(name), f"{name} of an other positive") for name in ("title", "text"))
            id_ = checked_id(record.get("id"), "other positive")
            names += filter(None, (id_, passage_text(title, text) if text else ""))
        except Unusable as reason:
            dropped.note(str(reason), where)
    return tuple(names)


def _score(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unusable("score that is no finite number")
    return value
