"""`largede latency`: how long a call with a batch of queries takes, from text to vectors, and how many a second it is.

Every call is timed on its own, tokenising included, which is timed once more by itself. Texts are questions cut so that
they have the wanted number of tokens, special ones included, so that nothing is padded. A GPU is waited for.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch

from largede.errors import ModelError
from largede.evaluation.latency.model import OpenedEncoder, open_encoder
from largede.evaluation.latency.texts import texts_of
from largede.models.presets import PRESETS
from largede.runs.provenance import provenance

BATCHES = (1, 4, 8, 16, 32, 64)
LENGTHS = (16, 32, 64, 128)

PAPER_MS = {"gtr-base": 17.0, "gtr-large": 34.0, "gtr-xl": 96.0, "gtr-xxl": 349.0}
PAPER_CELL = (1, 128)
"""Ni et al. 2021 give milliseconds for one query of 128 tokens, on hardware of theirs."""

WARM_UP_CALLS = 3
CALLS_OF_P99 = 100
"""Of fewer calls the 99th percentile is the slowest, and is not given."""
MOST_CALLS = 5_000
DIFFERENT_BATCHES = 4
"""Calls take turns with so many batches, lest a tokenizer remember the words."""


@dataclass(frozen=True)
class LatencyJob:
    """What to time: a model folder, or the name of a preset, which gets random weights.

    Every pair of a batch and a length is timed for `seconds`, but for at least `calls` calls. `tokenizer` is for a
    preset, which has none: without it, tokens are drawn and tokenising is left out. `threads` None: as torch has it.
    """

    model: str
    batches: tuple[int, ...] = BATCHES
    lengths: tuple[int, ...] = LENGTHS
    device: str | None = None
    compute_dtype: str = "float32"
    threads: int | None = None
    compile: bool = False
    tokenizer: str | None = None
    seconds: float = 10.0
    calls: int = 20


@dataclass(frozen=True)
class Cell:
    """Calls with one batch of queries of one length; milliseconds of a whole call, and of its tokenising (median)."""

    batch: int
    tokens: int
    calls: int
    queries_per_s: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float | None
    tokenising_ms: float | None
    paper_ms: float | None


def measure_latency(job: LatencyJob, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Time every cell, saying each row of the table as it is there; gives what `--out` holds.

    Raises:
        ModelError: no such model, or a length that it does not read.
        MachineError: no such device.
    """
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    # Each of oneDNN's layers breaks the compiled graph: in float32 it is worth it, in bfloat16 not for small models.
    onednn = not (job.compile and job.compute_dtype == "bfloat16")
    opened = open_encoder(job.model, job.device, job.compute_dtype, job.tokenizer, onednn=onednn)
    _check_lengths(opened, job.lengths)
    if job.compile:
        _compile(opened, len(job.batches) * len(job.lengths))
    for line in _heading(job, opened):
        say(line)
    cells = []
    for cell in _cells(job, opened):
        cells.append(cell)
        say(_row(cell))
    for line in _remarks(job, cells):
        say(line)
    return {
        "model": job.model,
        "shape": opened.shape,
        "weights": opened.weights,
        "settings": asdict(job) | {"device": str(opened.encoder.device), "threads": torch.get_num_threads()},
        "cells": [asdict(cell) for cell in cells],
        "paper": {
            "batch": PAPER_CELL[0],
            "tokens": PAPER_CELL[1],
            "ms": PAPER_MS,
            "hardware": "the authors', not ours",
        },
        "about": provenance() | _device_said(opened.encoder.device),
    }


def time_calls(call: Callable[[], Sequence[float]], seconds: float, at_least: int) -> np.ndarray:
    """What `call` says of each of its calls (calls, K), after a warm-up, until `seconds` are over."""
    for _ in range(WARM_UP_CALLS):
        call()
    found: list[Sequence[float]] = []
    end = time.perf_counter() + seconds
    while len(found) < at_least or (time.perf_counter() < end and len(found) < MOST_CALLS):
        found.append(call())
    return np.array(found)


def _cells(job: LatencyJob, opened: OpenedEncoder) -> Iterator[Cell]:
    for tokens in job.lengths:
        texts = texts_of(opened.tokenizer, opened.prefix, tokens, max(job.batches) * DIFFERENT_BATCHES)
        for batch in job.batches:
            groups = cycle([texts[first : first + batch] for first in range(0, len(texts) - batch + 1, batch)])
            times = time_calls(lambda: _timed_call(opened, next(groups), tokens), job.seconds, job.calls)  # noqa: B023
            yield _cell(batch, tokens, times, opened)


def _timed_call(opened: OpenedEncoder, texts: Sequence[str], tokens: int) -> tuple[float, float]:
    """Seconds from texts to vectors in main memory, and of tokenising the same texts."""
    device = opened.encoder.device
    began = _now(device)
    opened.encoder.embed(texts, "query", tokens)
    embedded = _now(device)
    opened.tokenise(texts, tokens)
    return embedded - began, time.perf_counter() - embedded


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _cell(batch: int, tokens: int, times: np.ndarray, opened: OpenedEncoder) -> Cell:
    call_ms, tokenising_ms = 1000 * times.T
    p50, p95, p99 = (float(value) for value in np.percentile(call_ms, [50, 95, 99]))
    in_paper = (batch, tokens) == PAPER_CELL and opened.shape is not None
    return Cell(
        batch,
        tokens,
        len(call_ms),
        queries_per_s=1000 * batch / float(call_ms.mean()),
        mean_ms=float(call_ms.mean()),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99 if len(call_ms) >= CALLS_OF_P99 else None,
        tokenising_ms=float(np.median(tokenising_ms)) if opened.has_tokenizer else None,
        paper_ms=PAPER_MS.get(opened.shape or "") if in_paper else None,
    )


def _check_lengths(opened: OpenedEncoder, lengths: Sequence[int]) -> None:
    limit = opened.limit
    if limit is not None and max(lengths) > limit:
        raise ModelError(
            f"queries of {max(lengths)} tokens",
            expected=f"at most the {limit} that the model reads",
            mend="leave out that --length",
        )


def _compile(opened: OpenedEncoder, shapes: int) -> None:
    """One compilation for each shape; its time is part of the warm-up, which is not counted."""
    dynamo: Any = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, shapes + 1)
    towers: dict[Any, Any] = opened.encoder.towers
    towers["query"] = torch.compile(towers["query"], dynamic=False)


_COLUMNS = ("batch", "length", "calls", "queries/s", "p50 ms", "p95 ms", "p99 ms", "tokenising ms", "paper ms")


def _heading(job: LatencyJob, opened: OpenedEncoder) -> Iterator[str]:
    device = opened.encoder.device
    place = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    compiled = ", compiled" if job.compile else ""
    yield f"{job.model}, {opened.weights}, {job.compute_dtype}{compiled}, {device.type} ({place})"
    yield "milliseconds of a call, from texts to vectors, tokenising included; p50 of the tokenising alone beside it"
    yield "  ".join(name.rjust(9) for name in _COLUMNS)


def _row(cell: Cell) -> str:
    numbers = [f"{cell.batch}", f"{cell.tokens}", f"{cell.calls:,}", f"{cell.queries_per_s:,.1f}"]
    times = (cell.p50_ms, cell.p95_ms, cell.p99_ms, cell.tokenising_ms, cell.paper_ms)
    numbers += ["-" if value is None else f"{value:,.2f}" for value in times]
    return "  ".join(number.rjust(max(9, len(name))) for number, name in zip(numbers, _COLUMNS, strict=True))


def _remarks(job: LatencyJob, cells: Sequence[Cell]) -> Iterator[str]:
    if any(cell.p99_ms is None for cell in cells):
        yield f"p99 -: fewer than {CALLS_OF_P99} calls in {job.seconds:g} s; give more --seconds or --calls"
    if any(cell.tokenising_ms is None for cell in cells):
        yield "tokenising -: a preset has no tokenizer, tokens were drawn; give --tokenizer to have it timed"
    figures = ", ".join(f"{name.removeprefix('gtr-')} {ms:g}" for name, ms in PAPER_MS.items())
    yield f"paper: Ni et al. 2021, one query of {PAPER_CELL[1]} tokens, on hardware of theirs: {figures} ms"


def _device_said(device: torch.device) -> dict[str, str]:
    return {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}


assert PAPER_MS.keys() <= PRESETS.keys()
