"""The JSON lines that sentence-transformers publishes as embedding-training-data.

Each line is one of
- `["query", "positive"]`,
- `["anchor", "positive", "negative"]`,
- `{"query": "...", "pos": ["...", ...]}`, with or without `"neg": ["...", ...]`,
- `{"set": ["...", ...]}`: texts that mean the same. Each makes a pair with the one after it, so that k texts make k - 1
  pairs; all of the set are right answers to each other.
Lists with a score or a label instead of a third text are not of this format; they are counted and passed over.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from data_tools.dropped import Dropped
from data_tools.format import Format
from data_tools.readers.labelled import (
    LabelledOptions,
    Passage,
    Query,
    Unusable,
    an_object,
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
            yield from _pairs(value, source, options, where, dropped)
        except Unusable as reason:
            dropped.note(str(reason), where)


def _pairs(value: Any, source: str, options: LabelledOptions, where: str, dropped: Dropped) -> Iterator[Pair]:
    if isinstance(value, list):
        yield from _of_tuple(value, source, options, where, dropped)
    elif "set" in (record := an_object(value)):
        yield from _of_set(checked_list(record["set"], "texts of a set"), source, options, where, dropped)
    else:
        query = Query(required_text(record.get("query"), "query"), source=source)
        positives, negatives = (
            passages_of(_texts(record.get(field)), name, where, dropped)
            for field, name in (("pos", "positive"), ("neg", "negative"))
        )
        yield from pairs_of_query(query, positives, negatives, options, where, dropped)


def _of_tuple(value: list[Any], source: str, options: LabelledOptions, where: str, dropped: Dropped) -> Iterator[Pair]:
    if len(value) not in (2, 3):
        raise Unusable("list that is neither of two nor of three texts")
    query, positive, *negatives = value
    answers = [Passage("", "", required_text(positive, "positive"))]
    asked = Query(required_text(query, "query"), source=source)
    others = [Passage("", "", required_text(negative, "negative")) for negative in negatives]
    yield from pairs_of_query(asked, answers, others, options, where, dropped)


def _of_set(values: Any, source: str, options: LabelledOptions, where: str, dropped: Dropped) -> Iterator[Pair]:
    texts = list(dict.fromkeys(passage.text for passage in passages_of(values, "text of a set", where, dropped)))
    if len(texts) < 2:
        raise Unusable("set of fewer than two different texts")
    for _ in texts[options.max_positives + 1 :]:
        dropped.note("text of a set beyond --max-positives", where)
    texts = texts[: options.max_positives + 1]
    for query, positive in pairwise(texts):
        others = tuple(text for text in texts if text not in (query, positive))
        yield Pair(query, positive, other_positives=others, source=source)


def _texts(value: Any) -> Any:
    """The list under `pos` or `neg`; a single text stands for a list of one."""
    return [value] if isinstance(value, str) else checked_list(value, "positives or negatives")


FORMAT = Format(
    "sentence-transformers",
    "Pairs, triplets, queries with positives and negatives, and sets, as sentence-transformers publishes them.",
    "largede-data pairs sentence-transformers gooaq_pairs.jsonl.gz --out gooaq",
    LabelledOptions,
    read,
    inputs="JSON lines, plain or compressed",
)
