"""The parts that a pipeline reads: files of pairs, in an order that depends on their names alone."""

from collections.abc import Sequence
from pathlib import Path

from data_tools.inputs import files_of_pairs, refuse_twice
from largede.errors import DataError


def find_parts(inputs: Sequence[Path]) -> list[Path]:
    """The files of pairs in the given folders (sorted by name, not deeper) and the given files, as absolute paths.

    Raises DataError for a path that does not exist, a folder without such files, and a file that is named twice.
    """
    parts = [part for path in inputs for part in _parts_of(path.resolve())]
    refuse_twice(parts)
    return parts


def _parts_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist", expected="a folder or file of pairs", mend="correct the path")
    return files_of_pairs(path)


def identity(path: Path) -> dict[str, object]:
    """What a change of a file shows in without reading it: name, bytes and time of the last change."""
    state = path.stat()
    return {"name": str(path), "bytes": state.st_size, "changed_ns": state.st_mtime_ns}
