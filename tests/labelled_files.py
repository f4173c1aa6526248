"""Running the readers of labelled data sets on files that a test has just written."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from data_tools.dropped import Dropped
from data_tools.groups import buckets_of, groups, writing_groups
from data_tools.readers.judged import join_passage
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
    reader: ModuleType, inputs: Iterable[Path], options: Any, folder: Path, joined: bool = True
) -> tuple[list[Pair], Dropped]:
    """What a grouping reader makes of its inputs; `joined` ones bring passages and queries together first."""
    dropped = Dropped()
    files = []
    for number, path in enumerate(inputs):
        files.append(folder / f"map-{number}")
        with writing_groups(files[-1]) as writer:
            for key, record in reader.records(path, options, dropped):
                writer.add(key, record)
    if joined:
        with writing_groups(folder / "joined") as writer:
            for bucket in buckets_of(files):
                for key, group in groups(files, bucket):
                    for new_key, record in join_passage(key, group, dropped):
                        writer.add(new_key, record)
        files = [folder / "joined"]
    pairs = [
        pair
        for bucket in buckets_of(files)
        for key, group in groups(files, bucket)
        for pair in reader.pairs_of(key, group, options, dropped)
    ]
    return pairs, dropped
