"""The parts that a pipeline reads: files of pairs, in an order that depends on their names alone."""

from collections.abc import Sequence
from pathlib import Path

from largede.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def find_parts(inputs: Sequence[Path]) -> list[Path]:
    """The files of pairs in the given folders (sorted by name, not deeper) and the given files, as absolute paths.

    Raises DataError for a path that does not exist, a folder without such files, and a file that is named twice.
    """
    parts = [part for path in inputs for part in _parts_of(path)]
    for earlier, part in zip(sorted(parts), sorted(parts)[1:], strict=False):
        if earlier == part:
            raise DataError(f"{part} is named twice", expected="every file of pairs once", mend="name it once")
    return parts


def _parts_of(path: Path) -> list[Path]:
    path = path.resolve()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist", expected="a folder or file of pairs", mend="correct the path")
    found = sorted(part for part in path.iterdir() if part.name.endswith(SUFFIXES) and not part.name.startswith("."))
    if not found:
        raise DataError(
            f"{path} holds no file of pairs",
            expected="a folder of " + ", ".join(f"*{suffix}" for suffix in SUFFIXES),
            mend="name the folder that `largede-data pairs` wrote",
        )
    return found


def identity(path: Path) -> dict[str, object]:
    """What a change of a file shows in without reading it: name, bytes and time of the last change."""
    state = path.stat()
    return {"name": str(path), "bytes": state.st_size, "changed_ns": state.st_mtime_ns}


def part_name(number: int) -> str:
    return f"part-{number:05d}.jsonl.zst"
