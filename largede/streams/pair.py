"""A training pair: one query, the passage that answers it, and optional hard negatives."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from largede.errors import DataError
from largede.text import passage_text


class Pair(NamedTuple):
    """One training example. Texts are stripped and never empty, except titles, ids and `group`, which may be "".

    `negative_titles` and `negative_ids` are empty when no negative has one; otherwise they run parallel to `negatives`.
    `group` names the source (article, thread); pairs of one group are likely false negatives of each other.
    `other_positives` are ids or whole texts (title and body joined) of further passages known to answer the query: they
    are not trained on here, but never count as its negatives. `source` names the collection a pair was read from (a
    forum, a data set) and `score` is what its readers voted for the answer; training uses neither.
    """

    query: str
    positive: str
    title: str = ""
    negatives: tuple[str, ...] = ()
    negative_titles: tuple[str, ...] = ()
    query_id: str = ""
    positive_id: str = ""
    negative_ids: tuple[str, ...] = ()
    group: str = ""
    other_positives: tuple[str, ...] = ()
    source: str = ""
    score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, empty fields left out; `from_dict` is its inverse."""
        record: dict[str, Any] = {name: getattr(self, name) for name in _TEXTS if getattr(self, name)}
        if self.negatives:
            record["negatives"] = self._negatives_as_json()
        if self.other_positives:
            record["other_positives"] = list(self.other_positives)
        if self.score is not None:
            record["score"] = self.score
        return record

    def without_negatives(self) -> "Pair":
        """The pair itself; its negatives may be refreshed, the rest is what it is."""
        return self._replace(negatives=(), negative_titles=(), negative_ids=())

    def _negatives_as_json(self) -> list[Any]:
        if not (self.negative_titles or self.negative_ids):
            return list(self.negatives)
        blank = ("",) * len(self.negatives)
        columns = zip(self.negative_ids or blank, self.negative_titles or blank, self.negatives, strict=True)
        return [
            {name: value for name, value in zip(("id", "title", "text"), row, strict=True) if value} for row in columns
        ]

    @classmethod
    def from_dict(cls, record: Any, where: str) -> "Pair":
        """Check a decoded JSON value and build the pair; unknown keys are ignored, `null` means absent.

        Negatives are strings or objects with `text` and optional `title` and `id`; other positives are ids or texts,
        or such objects with an id, a text or both. Ids may be whole numbers.
        `where` ("file line 3") opens the message of the DataError raised for anything else.
        """
        if not isinstance(record, dict):
            raise _unusable(
                where, f"holds {_kind(record)}", 'a JSON object such as {"query": "...", "positive": "..."}'
            )
        texts = {name: _text(record, name, where) for name in _TEXTS}
        for name in ("query", "positive"):
            if not texts[name]:
                raise _unusable(where, f"has no {name}, or an empty one", f'text under "{name}"')
        negatives, negative_titles, negative_ids = _negatives(record.get("negatives"), where)
        return cls(
            **texts,
            negatives=negatives,
            negative_titles=negative_titles,
            negative_ids=negative_ids,
            other_positives=_other_positives(record.get("other_positives"), where),
            score=_score(record.get("score"), where),
        )


_TEXTS = ("query", "positive", "title", "query_id", "positive_id", "group", "source")
_IDS = ("query_id", "positive_id", "id", "group")


def _negatives(value: Any, where: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(texts, titles, ids); titles and ids are empty when there is none at all."""
    if not value and (value is None or isinstance(value, list)):
        return (), (), ()
    if not isinstance(value, list):
        raise _unusable(where, f'has {_kind(value)} under "negatives"', "a list of texts or of objects")
    rows = [_negative(item, f"{where}, negative {number}") for number, item in enumerate(value, start=1)]
    ids, titles, texts = zip(*rows, strict=True)
    return texts, titles if any(titles) else (), ids if any(ids) else ()


def _other_positives(value: Any, where: str) -> tuple[str, ...]:
    """Every id and every whole text that names a further right answer."""
    if not value and (value is None or isinstance(value, list)):
        return ()
    if not isinstance(value, list):
        raise _unusable(where, f'has {_kind(value)} under "other_positives"', "a list of ids, texts or objects")
    names: list[str] = []
    for number, item in enumerate(value, start=1):
        place = f"{where}, other positive {number}"
        record = item if isinstance(item, dict) else {"id": item}
        text = _text(record, "text", place)
        found = [_text(record, "id", place), passage_text(_text(record, "title", place), text) if text else ""]
        if not any(found):
            raise _unusable(place, "has neither id nor text", "an id, a text, or an object with one of them")
        names += filter(None, found)
    return tuple(names)


def _score(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _unusable(where, f'has {_kind(value)} under "score"', 'a finite number under "score"')
    return value


def _negative(item: Any, where: str) -> tuple[str, str, str]:
    """(id, title, text) of one negative."""
    record = {"text": item} if isinstance(item, str) else item
    if not isinstance(record, dict):
        raise _unusable(where, f"is {_kind(item)}", 'a text or an object with "text" and optional "title" and "id"')
    text = _text(record, "text", where)
    if not text:
        raise _unusable(where, "has no text, or an empty one", "text")
    return _text(record, "id", where), _text(record, "title", where), text


def _text(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if name in _IDS and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _unusable(where, f'has {_kind(value)} under "{name}"', f'text under "{name}"')
    if not value.isascii():
        _refuse_surrogates(value, name, where)
    return value.strip()


def _refuse_surrogates(value: str, name: str, where: str) -> None:
    # JSON may spell half of a UTF-16 pair ("\ud83d"); neither UTF-8 nor a tokenizer can hold it.
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _unusable(where, f'has half a Unicode character under "{name}"', "whole Unicode characters") from None


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)


def _unusable(where: str, what: str, expected: str) -> DataError:
    return DataError(f"{where} {what}", expected=expected, mend="correct or remove that pair")
