"""SQuAD 1.1 and 2.0 JSON, and what is made like it: {"data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}.

A question's positive is its paragraph, the article's title the passage's. `group` is the article. Questions that cannot
be answered from their paragraph (SQuAD 2.0) are counted and passed over. Articles are read one by one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.dropped import Dropped
from data_tools.format import Format, option
from data_tools.readers.json_array import array_items
from data_tools.readers.labelled import (
    Unusable,
    an_object,
    checked_id,
    checked_list,
    checked_text,
    required_text,
    source_of,
)
from data_tools.sources import opened
from largede.streams.pair import Pair


@dataclass(frozen=True)
class SquadOptions:
    source: str = option("", "name of the data set, kept in every pair (that of the file)")


def read(path: Path, options: SquadOptions, dropped: Dropped) -> Iterator[Pair]:
    source = options.source or source_of(path)
    with opened(path) as stream:
        for number, article in enumerate(array_items(stream, path, "data"), start=1):
            where = f"{path} article {number}"
            try:
                record = an_object(article)
                heading = checked_text(record.get("title"), "title").replace("_", " ")
                paragraphs = checked_list(record.get("paragraphs"), "paragraphs")
            except Unusable as reason:
                dropped.note(str(reason), where)
                continue
            for place, paragraph in enumerate(paragraphs, start=1):
                yield from _of_paragraph(paragraph, heading, source, f"{where} paragraph {place}", dropped)


def _of_paragraph(paragraph: Any, title: str, source: str, where: str, dropped: Dropped) -> Iterator[Pair]:
    try:
        record = an_object(paragraph)
        context = required_text(record.get("context"), "context")
        questions = checked_list(record.get("qas"), "questions")
    except Unusable as reason:
        dropped.note(str(reason), where)
        return
    for number, question in enumerate(questions, start=1):
        try:
            asked, id_ = _asked(question)
        except Unusable as reason:
            dropped.note(str(reason), f"{where} question {number}")
        else:
            yield Pair(asked, context, title, query_id=id_, group=title, source=source)


def _asked(question: Any) -> tuple[str, str]:
    """(text, id) of a question. Raises Unusable."""
    record = an_object(question)
    if record.get("is_impossible"):
        raise Unusable("question that its paragraph does not answer")
    return required_text(record.get("question"), "query"), checked_id(record.get("id"), "query id")


FORMAT = Format(
    "squad",
    "SQuAD 1.1 and 2.0: questions and their paragraphs.",
    "largede-data pairs squad train-v2.0.json --source squad --out squad",
    SquadOptions,
    read,
    inputs="a JSON file, plain or compressed",
)
