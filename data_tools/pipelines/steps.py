"""The two ends of every pipeline and the frame of what stands between them, as datatrove steps.

One task is one part: task 7 reads the part with number 7, and `part-00007` is written from it alone. So nothing that
is written depends on how many tasks run at a time, where, or in which order. A step in the middle never takes a pair
out of the stream. It marks the pair as dropped, with a reason, and `WritePart` keeps or counts every pair it is handed:
what was read is what was kept and what was removed.
"""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from data_tools.inputs import InputFile
from data_tools.pairs import numbered_lines, parse_pair
from data_tools.parts import part_name
from largede.errors import DataError
from largede.files import write_json, writing
from largede.streams.pair import Pair
from largede.text import passage_text

BAD_LINE = "no usable pair on the line"
_EXAMPLE_CHARACTERS = 700


@dataclass(frozen=True)
class Drop:
    """Why a pair is removed. `detail` goes into the report's example; `also` are further counts for the report."""

    reason: str
    detail: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()


class ReadPart(PipelineStep):
    """Yields a Document for each line of this task's part; the line itself travels along and is written as it was.

    A line that is no pair raises DataError, or is dropped and counted where no more than `skip_bad` of the part were.
    So does a part that holds fewer or more pairs than its manifest says.
    """

    type, name = "read", "part of pairs"

    def __init__(self, parts: list[InputFile], skip_bad: int) -> None:
        super().__init__()
        self.parts = parts
        self.skip_bad = skip_bad

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        part, bad = self.parts[rank], 0
        for row, (number, line) in enumerate(numbered_lines(part.path, part.pairs)):
            document = Document(text="", id=f"{rank}/{row}", metadata={"line": line, "row": row})
            try:
                document.metadata["pair"] = parse_pair(line, f"{part.path} line {number}")
            except DataError as error:
                bad += 1
                if bad > self.skip_bad:
                    raise
                document.metadata["drop"] = Drop(BAD_LINE, {"problem": error.given})
            yield document


class Judge(PipelineStep, ABC):
    """A step that looks at each pair that is still wanted, and may drop it."""

    type = "judge"

    @abstractmethod
    def judge(self, pair: Pair, row: int) -> Drop | None:
        """Why the pair is to go, or None. `row` counts the lines of its part from 0."""

    def prepare(self, rank: int) -> None:
        """Load what the judgements of one part need."""

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self.prepare(rank)
        for document in data:
            if "drop" not in document.metadata:
                drop = self.judge(document.metadata["pair"], document.metadata["row"])
                if drop is not None:
                    document.metadata["drop"] = drop
                    self.stat_update(f"dropped: {drop.reason}")
            yield document


class WritePart(PipelineStep):
    """Writes the pairs that were not dropped, and beside them what was dropped and why; both whole or not at all."""

    type, name = "write", "part of pairs"

    def __init__(self, parts: list[InputFile], results: Path, counts: Path) -> None:
        super().__init__()
        self.parts = parts
        self.results = results
        self.counts = counts

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        started = time.monotonic()
        tally = Tally()
        out = self.results / part_name(rank)
        with writing(out) as stream, zstandard.ZstdCompressor(level=3).stream_writer(stream, closefd=False) as text:
            for document in data:
                drop = document.metadata.get("drop")
                tally.add(document, drop)
                if drop is None:
                    text.write(document.metadata["line"].strip() + b"\n")
                yield document
        found = {
            "input": str(self.parts[rank].path),
            "bytes": out.stat().st_size,
            "seconds": time.monotonic() - started,
        }
        write_json(counts_path(self.counts, rank), tally.to_dict() | found)


def counts_path(folder: Path, rank: int) -> Path:
    return folder / f"{rank:05d}.json"


@dataclass
class Tally:
    """Counts of one part, and the first pair that each reason removed."""

    read: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, document: Document, drop: Drop | None) -> None:
        self.read += 1
        if drop is None:
            return
        self.removed[drop.reason] += 1
        self.notes.update(drop.also)
        if drop.reason not in self.examples:
            self.examples[drop.reason] = {"pair": _shown(document), **drop.detail}

    def to_dict(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "kept": self.read - self.removed.total(),
            "removed": dict(self.removed),
            "notes": dict(self.notes),
            "examples": self.examples,
        }


def _shown(document: Document) -> dict[str, str]:
    pair = document.metadata.get("pair")
    if pair is None:
        return {"line": document.metadata["line"].decode(errors="replace")[:_EXAMPLE_CHARACTERS].strip()}
    return shown_pair(pair)


def shown_pair(pair: Pair) -> dict[str, str]:
    """A pair as reports show it: long texts are cut."""
    texts = {"query": pair.query, "passage": passage_text(pair.title, pair.positive)}
    return {name: text[:_EXAMPLE_CHARACTERS] for name, text in texts.items()}
