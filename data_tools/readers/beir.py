"""Folders in BEIR format: `corpus.jsonl`, `queries.jsonl`, and the judgements of one split in `qrels/{split}.tsv`.

Each may be compressed (.gz, .zst). Folders of one name count as one collection.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.dropped import Dropped
from data_tools.readers.judged import (
    Judgement,
    Record,
    Role,
    judgement_record,
    pairs_of_query_group,
    passage_record,
    query_record,
)
from data_tools.readers.labelled import (
    Limits,
    Unusable,
    an_object,
    checked_text,
    json_lines,
    made_passage,
    required_id,
    required_text,
)
from data_tools.readers.tables import judgements
from largede.errors import DataError
from largede.streams.pair import Pair

_SUFFIXES = ("", ".gz", ".zst")


@dataclass(frozen=True)
class BeirOptions:
    """Judgements of at least `min_grade` are positives; `source` is the folder's name where it is ""."""

    split: str = "train"
    min_grade: int = 1
    source: str = ""
    limits: Limits = Limits()


def files_of(folder: Path, split: str) -> tuple[Path, Path, Path]:
    """Corpus, queries and judgements of a folder. Raises DataError for one that is missing."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder",
            expected="a folder in BEIR format",
            mend="give the folder that holds corpus.jsonl, queries.jsonl and qrels/",
        )
    corpus, queries, qrels = (_found(folder, name) for name in ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv"))
    return corpus, queries, qrels


def _found(folder: Path, name: str) -> Path:
    for suffix in _SUFFIXES:
        if (path := folder / f"{name}{suffix}").is_file():
            return path
    splits = ", ".join(sorted({path.name.split(".")[0] for path in folder.glob("qrels/*.tsv*")})) or "none"
    raise DataError(
        f"{folder} has no {name}",
        expected=f"corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv (splits here: {splits})",
        mend="name the folder of one collection, and one of its splits with --split",
    )


def records(folder: Path, options: BeirOptions, dropped: Dropped) -> Iterator[Record]:
    corpus, queries, qrels = files_of(folder, options.split)
    collection = folder.resolve().name
    for path in (queries, corpus):
        for where, value in json_lines(path, dropped):
            try:
                yield _query(value, collection) if path is queries else _passage(value, collection)
            except Unusable as reason:
                dropped.note(str(reason), where)
    for where, query_id, passage_id, grade in judgements(qrels, dropped):
        if grade >= options.min_grade:
            # The best come first.
            yield judgement_record(collection, Judgement(query_id, passage_id, Role.POSITIVE, place=-grade))
        else:
            dropped.note("judgement below --min-grade", where)


def pairs_of(key: bytes, group: Sequence[bytes], options: BeirOptions, dropped: Dropped) -> Iterator[Pair]:
    yield from pairs_of_query_group(key, group, options.source, options.limits, dropped)


def _query(value: Any, collection: str) -> Record:
    record = an_object(value)
    return query_record(collection, required_id(record.get("_id"), "query"), required_text(record.get("text"), "query"))


def _passage(value: Any, collection: str) -> Record:
    record = an_object(value)
    title = checked_text(record.get("title"), "title")
    id_ = required_id(record.get("_id"), "passage")
    return passage_record(collection, made_passage(id_, title, record.get("text"), "passage"))
