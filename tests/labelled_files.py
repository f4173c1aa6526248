"""Running the readers of labelled data sets on files that a test has just written."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from data_tools.dropped import Dropped
from data_tools.groups import buckets_of, groups, writing_groups
from data_tools.readers.judged import join_passage, join_query
from largede.streams.pair import Pair


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def lines_written(path: Path, values: Iterable[Any]) -> Path:
    return written(path, "".join(json.dumps(value) + "\n" for value in values))


def pairs_in(reader: ModuleType, path: Path, options: Any) -> tuple[list[Pair], Dropped]:
    """What a plain reader makes of one input."""
    dropped = Dropped()
    return list(reader.read(path, options, dropped)), dropped


def grouped_pairs(
    reader: ModuleType,
    files: Iterable[Path],
    options: Any,
    folder: Path,
    groupings: Iterable[Callable[..., Iterator[Any]]] = (join_passage, join_query),
) -> tuple[list[Pair], Dropped]:
    """What a reader of records and its groupings make of its files, one after the other in this process."""
    dropped = Dropped()
    results: Iterable[Any] = (record for path in files for record in reader.read(path, options, dropped))
    for number, grouping in enumerate(groupings):
        path = folder / f"records-{number}"
        with writing_groups(path) as writer:
            for record in results:
                writer.add(*record)
        results = [
            result
            for bucket in buckets_of([path])
            for key, group in groups([path], bucket)
            for result in grouping(key, group, options, dropped)
        ]
    return list(results), dropped
