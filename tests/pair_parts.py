"""Folders of parts of pairs, written and read back; and the real pairs, where they are."""

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import zstandard
from beir_folder import shared_data

from data_tools.pipelines.executors import Local
from data_tools.pipelines.job import Outcome, Plan, run_plan


def write_parts(folder: Path, parts: Sequence[Iterable[dict[str, Any]]]) -> Path:
    """One .jsonl.zst file for each list of pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pairs in enumerate(parts):
        text = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
        (folder / f"part-{number:05d}.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(text.encode()))
    return folder


def read_lines(folder: Path) -> list[bytes]:
    """The lines of all parts, in order."""
    text = b"".join(zstandard.ZstdDecompressor().stream_reader(p.open("rb")).read() for p in part_files(folder))
    return text.splitlines()


def read_pairs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_lines(folder)]


def part_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl.zst"))


def run_here(plan: Plan, inputs: Path, out: Path, workers: int = 1) -> Outcome:
    return run_plan(plan, [inputs], out, Local(workers))


def real_pairs(name: str, count: int) -> list[dict[str, Any]]:
    with gzip.open(shared_data("pairs", f"{name}.jsonl.gz"), "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line, _ in zip(stream, range(count), strict=False)]
