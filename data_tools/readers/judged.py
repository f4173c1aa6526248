"""Collections whose queries, passages and judgements lie in different files: two groupings bring them together.

Reading the files gives records for the first grouping, each under a query's or a passage's key. There a passage meets
those who ask for it (`join_passage`), which gives records for the second grouping, all under queries' keys. There a
query meets its passages (`join_query`). So no file is held in memory, and files may come in any order.

Ids belong to a collection (BEIR folders number their documents alike), so keys begin with its name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgpack

from data_tools.dropped import Dropped
from data_tools.format import Record
from data_tools.readers.labelled import LabelledOptions, Passage, Query, pairs_of_query
from largede.streams.pair import Pair


class Role(IntEnum):
    """What a passage is to a query."""

    POSITIVE = 0
    NEGATIVE = 1


class _Kind(IntEnum):
    QUERY = 0
    TITLE = 1
    PASSAGE = 2
    WANTED = 3
    FOUND = 4


@dataclass(frozen=True)
class Judgement:
    """That a query has a passage as `role`; the lowest `place` comes first among a query's passages of that role."""

    query_id: str
    passage_id: str
    role: Role
    place: tuple[int, ...]


def query_record(collection: str, id_: str, text: str) -> Record:
    return _key("query", collection, id_), _pack(_Kind.QUERY, text)


def passage_record(collection: str, passage: Passage) -> Record:
    return _key("passage", collection, passage.id), _pack(_Kind.PASSAGE, passage.title, passage.text)


def title_record(collection: str, id_: str, title: str) -> Record:
    """The title of a passage, where titles have a file of their own."""
    return _key("passage", collection, id_), _pack(_Kind.TITLE, title)


def judgement_record(collection: str, judgement: Judgement) -> Record:
    """A judgement waits under its passage, to take the text to its query."""
    wanted = _pack(_Kind.WANTED, judgement.query_id, int(judgement.role), judgement.place)
    return _key("passage", collection, judgement.passage_id), wanted


def join_passage(key: bytes, records: Sequence[bytes], options: object, dropped: Dropped) -> Iterator[Record]:
    """First grouping: the passage to each query that asks for it. Records of queries pass through."""
    kind, collection, id_ = msgpack.unpackb(key)
    if kind == "query":
        yield from ((key, record) for record in records)
        return
    unpacked: list[list[Any]] = [msgpack.unpackb(record) for record in records]
    wanted = [rest for kind, *rest in unpacked if kind == _Kind.WANTED]
    if not wanted:
        return
    texts = [rest for kind, *rest in unpacked if kind == _Kind.PASSAGE]
    for _ in texts[1:]:
        dropped.note("passage whose id came before", f"{collection} passage {id_}")
    if not texts:
        for query_id, *_ in wanted:
            dropped.note("judgement of a passage that no file holds", f"{collection} query {query_id} passage {id_}")
        return
    title, text = texts[0]
    title = title or next((rest[0] for kind, *rest in unpacked if kind == _Kind.TITLE), "")
    for query_id, role, place in wanted:
        yield _key("query", collection, query_id), _pack(_Kind.FOUND, role, place, id_, title, text)


def join_query(key: bytes, records: Sequence[bytes], options: LabelledOptions, dropped: Dropped) -> Iterator[Pair]:
    """Second grouping: a query with its passages, those of a role in the order of their places.

    The pairs' source is the collection where the options name none.
    """
    _, collection, id_ = msgpack.unpackb(key)
    where = f"{collection} query {id_}"
    unpacked: list[list[Any]] = [msgpack.unpackb(record) for record in records]
    texts = [rest[0] for kind, *rest in unpacked if kind == _Kind.QUERY]
    found = sorted((rest for kind, *rest in unpacked if kind == _Kind.FOUND), key=lambda rest: (rest[0], rest[1]))
    for _ in texts[1:]:
        dropped.note("query whose id came before", where)
    if not found:
        # Queries of other splits lie in the same file: nobody asked for pairs of them.
        return
    if not texts:
        for _ in found:
            dropped.note("judgement of a query that no file holds", where)
        return
    positives, negatives = ([Passage(*rest) for role, _, *rest in found if role == wanted] for wanted in Role)
    query = Query(texts[0], id_, source=options.source or collection)
    yield from pairs_of_query(query, positives, negatives, options, where, dropped)


def _key(kind: str, collection: str, id_: str) -> bytes:
    return msgpack.packb((kind, collection, id_))


def _pack(*values: Any) -> bytes:
    return msgpack.packb(values)
