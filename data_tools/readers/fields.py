"""Pairs out of records whose fields have any names: what plain JSON lines and Parquet share."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_tools.dropped import Dropped
from data_tools.readers.labelled import (
    Limits,
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


@dataclass(frozen=True)
class Fields:
    """The name of the field that holds each part of a pair; the defaults are those of largede's own pairs.

    The positive is a text, whose title and id have fields of their own, or an object with `text`, `title` and `id`, or
    a list of such texts and objects. Negatives may be spread over several fields, each of one passage or of a list.
    """

    query: str = "query"
    positive: str = "positive"
    title: str = "title"
    negatives: tuple[str, ...] = ("negatives",)
    other_positives: str = "other_positives"
    query_id: str = "query_id"
    positive_id: str = "positive_id"
    group: str = "group"
    source: str = "source"
    score: str = "score"

    @property
    def names(self) -> tuple[str, ...]:
        """Every field that is looked at."""
        optional = (self.title, *self.negatives, self.other_positives, self.query_id, self.positive_id)
        return (self.query, self.positive, *optional, self.group, self.source, self.score)


@dataclass(frozen=True)
class FieldOptions:
    """`source` names the data set where a record does not; the name of the file where this is empty, too."""

    fields: Fields = Fields()
    source: str = ""
    limits: Limits = Limits()


def pairs_of_record(
    record: Mapping[str, Any], options: FieldOptions, source: str, where: str, dropped: Dropped
) -> Iterator[Pair]:
    """The pairs of one record, `source` being the name of its file. Raises Unusable."""
    fields = options.fields
    query = Query(
        required_text(record.get(fields.query), "query"),
        checked_id(record.get(fields.query_id), "query id"),
        checked_id(record.get(fields.group), "group"),
        checked_text(record.get(fields.source), "source") or options.source or source,
    )
    score = _score(record.get(fields.score))
    known = _other_positives(record.get(fields.other_positives), where, dropped)
    positives = _positives(record, fields, where, dropped)
    wrong = [value for name in fields.negatives for value in _listed(record.get(name), "negatives")]
    negatives = passages_of(wrong, "negative", where, dropped)
    for pair in pairs_of_query(query, positives, negatives, options.limits, where, dropped):
        if known or score is not None:
            pair = replace(pair, other_positives=pair.other_positives + known, score=score)
        yield pair


def _positives(record: Mapping[str, Any], fields: Fields, where: str, dropped: Dropped) -> Sequence[Passage]:
    value = record.get(fields.positive)
    if isinstance(value, list):
        return passages_of(value, "positive", where, dropped)
    if isinstance(value, dict):
        return [passage_of(value, "positive")]
    title = checked_text(record.get(fields.title), "title")
    id_ = checked_id(record.get(fields.positive_id), "positive id")
    return [made_passage(id_, title, required_text(value, "positive"), "positive")]


def _listed(value: Any, name: str) -> Sequence[Any]:
    return [value] if isinstance(value, str | dict) else checked_list(value, name)


def _other_positives(value: Any, where: str, dropped: Dropped) -> tuple[str, ...]:
    """Names of further right answers: ids or texts, or objects that have an id or a text."""
    names = []
    for item in _listed(value, "other positives"):
        try:
            if isinstance(item, dict):
                passage = passage_of({**item, "text": item.get("text") or item.get("id")}, "other positive")
                names.append(passage.id or passage.contents)
            elif name := checked_id(item, "other positive"):
                names.append(name)
        except Unusable as reason:
            dropped.note(str(reason), where)
    return tuple(names)


def _score(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unusable("score that is no finite number")
    return value
