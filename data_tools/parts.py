"""Parts: files of pairs, one zstandard frame each, in a folder that `largede-data pairs` wrote."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import zstandard

from data_tools.dropped import Dropped
from data_tools.pairs import line_of
from largede.errors import DataError
from largede.files import read_json_object, writing
from largede.streams.pair import Pair

MANIFEST = "pairs.json"


def part_name(number: int) -> str:
    return f"part-{number:05d}.jsonl.zst"


def write_parts(pairs: Iterable[Pair], folder: Path, part_pairs: int, dropped: Dropped) -> list[dict[str, Any]]:
    """Write the pairs in parts of `part_pairs`; name, pairs, bytes of text and bytes on disk of each.

    Pairs without text, or with half a Unicode character, are dropped and counted.
    """
    lines = _lines(pairs, dropped)
    parts: list[dict[str, Any]] = []
    for first in lines:
        name = part_name(len(parts))
        count, text_bytes = _write_part(folder / name, first, islice(lines, part_pairs - 1))
        sizes = {"text_bytes": text_bytes, "bytes": (folder / name).stat().st_size}
        parts.append({"name": name, "pairs": count} | sizes)
    return parts


def pair_files(inputs: Iterable[Path]) -> list[Path]:
    """The inputs, with the parts of a folder in the place of a folder that `largede-data pairs` wrote."""
    return [file for path in inputs for file in (_parts_of(path) if path.is_dir() else [path])]


def _parts_of(folder: Path) -> list[Path]:
    if not (folder / MANIFEST).exists():
        raise DataError(
            f"{folder} is a folder without {MANIFEST}",
            expected="files of pairs, or a folder that `largede-data pairs` wrote",
            mend="name the files in it",
        )
    return [folder / part["name"] for part in read_json_object(folder / MANIFEST)["parts"]]


def _lines(pairs: Iterable[Pair], dropped: Dropped) -> Iterator[bytes]:
    for pair in pairs:
        if not pair.query or not pair.positive:
            dropped.note("question or passage is empty", f"{pair.query_id} {pair.query} | {pair.positive_id}")
            continue
        try:
            yield line_of(pair) + b"\n"
        except UnicodeEncodeError:
            dropped.note("half a Unicode character", f"{pair.query_id} {pair.query}")


def _write_part(path: Path, first: bytes, others: Iterator[bytes]) -> tuple[int, int]:
    """(pairs, bytes of text). One frame, because readers exist that stop quietly after the first."""
    count, text_bytes = 1, len(first)
    with (
        writing(path) as file,
        zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False) as part,
    ):
        part.write(first)
        for line in others:
            part.write(line)
            count += 1
            text_bytes += len(line)
    return count, text_bytes
