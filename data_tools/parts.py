"""Parts: files of pairs, one zstandard frame each, in a folder whose manifest names them all with their sizes.

`largede-data pairs` writes pairs.json, the pipelines report.json. Whatever reads such a folder goes by its manifest,
so that a part that was lost, cut or added shows before anything is made of the rest. The manifest also says how many
pairs each part holds, which `numbered_lines` demands of whoever reads one.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
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
REPORT = "report.json"
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
# Under which name each manifest counts the pairs of a part.
_COUNTS = {MANIFEST: "pairs", REPORT: "kept"}
_PART_NUMBER = re.compile(r"part-(\d{5,})\.jsonl(?:\.gz|\.zst)?")


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


def parts_of(folder: Path) -> list[tuple[Path, int]] | None:
    """The parts that the manifest in `folder` names, in its order, each with its pairs; None: there is no manifest.

    Raises DataError when one is missing or has another size, or when a file of pairs lies there that it does not name;
    and without a manifest when the numbers of parts have a gap, since both were lost then.
    """
    for manifest, pairs in _COUNTS.items():
        parts = read_json_object(folder / manifest).get("parts") if (folder / manifest).is_file() else None
        if isinstance(parts, list):
            demand_whole(folder, manifest, parts)
            return [(folder / part["name"], int(part[pairs])) for part in parts]
    _demand_no_gap(folder)
    return None


def _demand_no_gap(folder: Path) -> None:
    numbers = {int(named[1]) for path in pairs_in(folder) if (named := _PART_NUMBER.fullmatch(path.name))}
    for number in range(max(numbers, default=0)):
        if number not in numbers:
            raise DataError(
                f"{folder} has a part with number {max(numbers)}, none with number {number} and no manifest",
                expected=f"all parts, with {MANIFEST} or {REPORT} as largede-data wrote it beside them",
                mend="bring the folder back as it was or make it again; or name the files to read one by one",
            )


def demand_whole(folder: Path, manifest: str, parts: Sequence[dict[str, Any]]) -> None:
    """Raise DataError unless `folder` holds the parts as its manifest describes them, and no other file of pairs."""
    present = {path.name: path.stat().st_size for path in pairs_in(folder)}
    try:
        named = {str(part["name"]): int(part["bytes"]) for part in parts if int(part[_COUNTS[manifest]]) >= 0}
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{folder / manifest} does not give name, bytes and pairs of every part",
            expected="the file as `largede-data` wrote it",
            mend="make the folder again; if that file is none of largede's, move it elsewhere",
        ) from None
    for name in sorted(named.keys() | present.keys()):
        if name not in present:
            fault = f"{folder / name} is missing"
        elif name not in named:
            fault = f"{folder / name} is no part of what was written there"
        elif present[name] != named[name]:
            fault = f"{folder / name} has {present[name]:,} bytes, not the {named[name]:,} that were written"
        else:
            continue
        raise DataError(
            fault,
            expected=f"the parts that {folder / manifest} names, as they were written",
            mend="bring the folder back as it was or make it again; what was added, name by itself from another folder",
        )


def pairs_in(folder: Path) -> list[Path]:
    """The files directly in a folder that hold pairs by their names, in the order of these."""
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and not path.name.startswith("."))


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
