"""Folders in BEIR format: `corpus.jsonl`, `queries.jsonl`, and the judgements of one split in `qrels/{split}.tsv`.

Each may be compressed (.gz, .zst). Folders of one name count as one collection.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.dropped import Dropped
from data_tools.format import Format, Record, option
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
    checked_text,
    json_lines,
    made_passage,
    required_id,
    required_text,
)
from data_tools.readers.tables import judgements
from largede.errors import DataError

_SUFFIXES = ("", ".gz", ".zst")


@dataclass(frozen=True)
class BeirOptions(LabelledOptions):
    split: str = option("train", "split whose judgements are used")
    min_grade: int = option(1, "lowest grade of a positive")


def files_of(folders: Sequence[Path], options: BeirOptions) -> list[Path]:
    """Queries, judgements and corpus of each folder. Raises DataError for one that is missing."""
    return [path for folder in folders for path in _files_of(folder, options.split)]


def read(path: Path, options: BeirOptions, dropped: Dropped) -> Iterator[Record]:
    if path.parent.name == "qrels":
        yield from _judgements(path, path.resolve().parent.parent.name, options, dropped)
        return
    collection = path.resolve().parent.name
    record_of = _passage if path.name.startswith("corpus.") else _query
    for where, value in json_lines(path, dropped):
        try:
            yield record_of(value, collection)
        except Unusable as reason:
            dropped.note(str(reason), where)


def _files_of(folder: Path, split: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder",
            expected="a folder in BEIR format",
            mend="give the folder that holds corpus.jsonl, queries.jsonl and qrels/",
        )
    return [_found(folder, name) for name in ("queries.jsonl", f"qrels/{split}.tsv", "corpus.jsonl")]


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


def _judgements(path: Path, collection: str, options: BeirOptions, dropped: Dropped) -> Iterator[Record]:
    for number, (where, query_id, passage_id, grade) in enumerate(judgements(path, dropped)):
        if grade >= options.min_grade:
            # The best come first, those of one grade in the order of the file.
            yield judgement_record(collection, Judgement(query_id, passage_id, Role.POSITIVE, (-grade, number)))
        else:
            dropped.note("judgement below --min-grade", where)


def _query(value: Any, collection: str) -> Record:
    record = an_object(value)
    return query_record(collection, required_id(record.get("_id"), "query"), required_text(record.get("text"), "query"))


def _passage(value: Any, collection: str) -> Record:
    record = an_object(value)
    title = checked_text(record.get("title"), "title")
    id_ = required_id(record.get("_id"), "passage")
    return passage_record(collection, made_passage(id_, title, record.get("text"), "passage"))


FORMAT = Format(
    "beir",
    "Folders in BEIR format: the judgements of one split.",
    "largede-data pairs beir nfcorpus fiqa --split train --out beir",
    BeirOptions,
    read,
    groupings=(join_passage, join_query),
    files=files_of,
    inputs="a folder with corpus.jsonl, queries.jsonl and qrels/",
)
