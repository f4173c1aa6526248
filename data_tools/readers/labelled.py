"""What the readers of labelled data sets share: checked texts, passages, and one query's passages turned into pairs.

A record that cannot be used is counted under its reason and passed over; a file that cannot be read stops the run.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.dropped import Dropped
from data_tools.format import option
from data_tools.sources import lines_of
from largede.errors import DataError
from largede.streams.pair import Pair
from largede.text import passage_text


class Unusable(Exception):
    """A record that makes no pair; its text is the reason, the same for all records of that kind."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage as a pair holds it: the text is never empty. `id` and `title` may be ""."""

    id: str
    title: str
    text: str

    @property
    def contents(self) -> str:
        return passage_text(self.title, self.text)


@dataclass(frozen=True, slots=True)
class Query:
    """What the pairs of one query have in common; the text is never empty, the other texts may be "".

    `other_positives` are names of right answers beside those that become pairs.
    """

    text: str
    id: str = ""
    group: str = ""
    source: str = ""
    score: float | None = None
    other_positives: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelledOptions:
    """What every format of labelled data can be told. A thousand positives already list a million other positives."""

    source: str = option("", "name of the data set, kept in every pair (that of the file or folder)")
    max_positives: int = option(1000, "pairs made of one query, at most")
    max_negatives: int | None = option(None, "negatives of a pair, at most: the first ones (all)")

    def __post_init__(self) -> None:
        if self.max_positives < 1 or (self.max_negatives or 0) < 0:
            raise DataError(
                f"--max-positives {self.max_positives}, --max-negatives {self.max_negatives}",
                expected="at least one positive, and not fewer than no negatives",
                mend="correct these flags",
            )


def source_of(path: Path) -> str:
    """The name of a data set when none is given: the file or folder without its suffixes."""
    return path.resolve().name.split(".")[0] or path.name


def json_lines(path: Path, dropped: Dropped) -> Iterator[tuple[str, Any]]:
    """(place, value) for each line that holds JSON; other lines are counted, blank ones are none."""
    for number, line in enumerate(lines_of(path), start=1):
        if line.isspace():
            continue
        where = f"{path} line {number}"
        try:
            value = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            dropped.note("line that is not UTF-8", where)
        except (ValueError, RecursionError):
            dropped.note("line that is not JSON", where)
        else:
            yield where, value


def an_object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Unusable("record that is no JSON object")
    return value


def checked_text(value: Any, name: str) -> str:
    """A text without white space around it; null counts as empty. Raises Unusable for anything that is no text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unusable(f"{name} that is no text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unusable(f"{name} with half a Unicode character") from None
    return value.strip()


def checked_id(value: Any, name: str) -> str:
    """An id: text or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return checked_text(value, name)


def required_id(value: Any, name: str) -> str:
    """The id of a `name` (query, passage). Raises Unusable where there is none."""
    id_ = checked_id(value, f"{name} id")
    if not id_:
        raise Unusable(f"{name} without an id")
    return id_


def required_text(value: Any, name: str) -> str:
    text = checked_text(value, name)
    if not text:
        raise Unusable(f"no {name}, or an empty one")
    return text


def checked_list(value: Any, name: str) -> Sequence[Any]:
    """A list; null and absence count as an empty one."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Unusable(f"{name} that are no list")
    return value


def passage_of(value: Any, name: str, id_fields: Sequence[str] = ("id",)) -> Passage:
    """A passage out of a text, or of an object with `text` and optional `title` and id.

    Where the text is empty the title is the passage. Raises Unusable.
    """
    if isinstance(value, str):
        return Passage("", "", required_text(value, name))
    if not isinstance(value, dict):
        raise Unusable(f"{name} that is neither text nor an object")
    id_ = next((checked_id(value[field], f"id of a {name}") for field in id_fields if value.get(field) is not None), "")
    return made_passage(id_, checked_text(value.get("title"), f"title of a {name}"), value.get("text"), name)


def made_passage(id_: str, title: str, text: Any, name: str) -> Passage:
    body = checked_text(text, name)
    if not body and not title:
        raise Unusable(f"no {name}, or an empty one")
    return Passage(id_, title, body) if body else Passage(id_, "", title)


def passages_of(
    values: Sequence[Any], name: str, where: str, dropped: Dropped, id_fields: Sequence[str] = ("id",)
) -> list[Passage]:
    """The usable passages of a list, the others counted."""
    found = []
    for value in values:
        try:
            found.append(passage_of(value, name, id_fields))
        except Unusable as reason:
            dropped.note(str(reason), where)
    return found


def pairs_of_query(
    query: Query,
    positives: Sequence[Passage],
    negatives: Sequence[Passage],
    options: LabelledOptions,
    where: str,
    dropped: Dropped,
) -> Iterator[Pair]:
    """One pair for each positive: the others are its `other_positives`, and it has all negatives of the query.

    A passage listed twice (same id or same contents) counts once, a negative that is also a positive not at all.
    """
    ids: set[str] = set()
    contents: set[str] = set()
    right = _unseen(positives, ids, contents, "positive listed twice, or under two ids", where, dropped)
    if not right:
        dropped.note("query without a positive", where)
        return
    for _ in right[options.max_positives :]:
        dropped.note("positive beyond --max-positives", where)
    right = right[: options.max_positives]
    wrong = _unseen(negatives, ids, contents, "negative listed twice, or also a positive", where, dropped)
    wrong = wrong[: options.max_negatives]
    names = [passage.id or passage.contents for passage in right]
    for number, positive in enumerate(right):
        others = (*names[:number], *names[number + 1 :], *query.other_positives)
        yield _pair(query, positive, wrong, others)


def _unseen(
    passages: Sequence[Passage], ids: set[str], contents: set[str], reason: str, where: str, dropped: Dropped
) -> list[Passage]:
    """The passages not met before; `ids` and `contents` remember those that were."""
    fresh = []
    for passage in passages:
        text = passage.contents
        if text in contents or (passage.id and passage.id in ids):
            dropped.note(reason, where)
            continue
        contents.add(text)
        ids.add(passage.id)
        fresh.append(passage)
    return fresh


def _pair(query: Query, positive: Passage, negatives: Sequence[Passage], other_positives: tuple[str, ...]) -> Pair:
    titles = tuple(passage.title for passage in negatives)
    ids = tuple(passage.id for passage in negatives)
    return Pair(
        query=query.text,
        positive=positive.text,
        title=positive.title,
        negatives=tuple(passage.text for passage in negatives),
        negative_titles=titles if any(titles) else (),
        query_id=query.id,
        positive_id=positive.id,
        negative_ids=ids if any(ids) else (),
        group=query.group,
        other_positives=other_positives,
        source=query.source,
        score=query.score,
    )
