"""`largede runs`: the run folders below some folders, what became of each, and its best figure.

Reads a few small files of each run and the last line of its figures, so hundreds take seconds; nothing is written.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from largede.durations import duration
from largede.errors import LargedeError
from largede.files import damaged_file, read_json_object
from largede.runs.evaluated import best_of, read_records
from largede.runs.files import (
    CHECKPOINTS,
    FIGURES,
    RUN,
    STATE,
    RunState,
    life_of,
    line_of_figures,
    read_run_state,
    words_of_hang,
)

TAIL_BYTES = 65_536


@dataclass(frozen=True)
class ListedRun:
    """One line of the table. `why` says what failed, stopped or is damaged; times are unix time; None is not known."""

    folder: str
    state: str
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    metric: str = ""
    best: float | None = None
    best_checkpoint: str = ""
    started: float | None = None
    duration_s: float | None = None
    parts: int | None = None
    commit: str = ""
    hardware: str = ""
    data: str = ""
    why: str = ""


def list_runs(folders: Sequence[Path]) -> list[ListedRun]:
    """Every run below the folders: those at work first, then the newest first."""
    found = {run.resolve(): run for folder in folders for run in find_runs(folder)}
    runs = [listed(run) for run in found.values()]
    return sorted(runs, key=lambda run: (run.state != "running", -(run.started or 0.0), run.folder))


def find_runs(folder: Path) -> Iterator[Path]:
    """Run folders at or below `folder`, not looking into any of them. Raises OSError when there is no such folder."""
    if is_run(folder):
        yield folder
        return
    with os.scandir(folder) as entries:
        below = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    for name in below:
        if not name.startswith("."):
            yield from find_below(folder / name)


def find_below(folder: Path) -> Iterator[Path]:
    """As `find_runs`; a folder that cannot be looked into is given itself, to be listed as damaged."""
    try:
        yield from find_runs(folder)
    except OSError:
        yield folder


def is_run(folder: Path) -> bool:
    return (folder / RUN).is_file() or (folder / STATE).is_file() or (folder / CHECKPOINTS / "latest.json").is_file()


def listed(run: Path) -> ListedRun:
    """What the files of a run say; a run one of whose files cannot be read is listed as damaged."""
    try:
        return _listed(run)
    except (LargedeError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = error.given if isinstance(error, LargedeError) else f"{type(error).__name__}: {error}"
        return ListedRun(str(run), "damaged", why=why)


def _listed(run: Path) -> ListedRun:
    os.scandir(run).close()  # said at once of a folder that cannot be looked into
    facts = read_json_object(run / RUN) if (run / RUN).is_file() else {}
    said, last = read_run_state(run), last_figures(run / FIGURES)
    best = best_of(read_records(run))
    state = life_of(run, said)
    started = number_in(facts, "begun", run / RUN)
    return ListedRun(
        folder=str(run),
        state=state,
        step=said.step if said else last.get("step"),
        steps=said.steps if said else number_in(facts, "steps", run / RUN),
        loss=last.get("loss/contrastive"),
        metric=best.metric if best else "",
        best=best.value if best else None,
        best_checkpoint=best.checkpoint if best else "",
        started=started,
        duration_s=_ended(state, said) - started if started and said else None,
        parts=number_in(facts, "part", run / RUN),
        commit=str(facts.get("largede", "")).partition("commit ")[2].replace(" with local changes", "+"),
        hardware=hardware_of(facts),
        data=str(facts.get("data_fingerprint", ""))[:8],
        why=_why(run, state, said) if said else "",
    )


def number_in(facts: dict[str, Any], name: str, path: Path) -> Any:
    """None where it is missing. Raises DataError for what is no number."""
    value = facts.get(name)
    if value is not None and not isinstance(value, int | float):
        raise damaged_file(path, f"{name} is {value!r}")
    return value


def _why(run: Path, state: str, said: RunState) -> str:
    """A run that hangs ends without a word of its own: then it is the watchdog's."""
    return words_of_hang(run, said.time) if state == "died" else said.why


def _ended(state: str, said: RunState) -> float:
    return time.time() if state == "running" else said.heartbeat


def hardware_of(facts: dict[str, Any]) -> str:
    """`2 hosts, 16 ranks, 8 × NVIDIA H100`, as short as it can be said."""
    hosts = facts.get("hosts") or []
    parts = [f"{len(hosts)} hosts"] if len(hosts) > 1 else []
    parts += [f"{facts['world_size']} rank{'s' if facts['world_size'] > 1 else ''}"] if "world_size" in facts else []
    pieces = str(hosts[0]["hardware"] if hosts else facts.get("hardware", "")).split(", ")
    gpus = [piece for piece in pieces if " × " in piece]
    return ", ".join(parts + (gpus or pieces[:1]))


def last_figures(path: Path) -> dict[str, Any]:
    """The last whole line of figures; {} when there is none."""
    if not path.is_file():
        return {}
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = stream.read().splitlines()
    return next(filter(None, map(line_of_figures, reversed(lines))), {})


def as_table(runs: Sequence[ListedRun]) -> str:
    """One line a run; what stopped, failed or is damaged says why below its line."""
    head = ("run", "state", "step", "loss", "best", "started", "took", "commit", "hardware", "data")
    rows = [head, *map(_row, runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    shown = lines[:1]
    for run, line in zip(runs, lines[1:], strict=True):
        shown += [line, *([f"    {run.why.splitlines()[0]}"] if run.why else [])]
    return "\n".join(shown)


def _row(run: ListedRun) -> tuple[str, ...]:
    step = "" if run.step is None else f"{run.step:,}" + (f"/{run.steps:,}" if run.steps else "")
    best = "" if run.best is None else f"{run.metric} {run.best:.4f} {run.best_checkpoint}"
    started = datetime.fromtimestamp(run.started).strftime("%Y-%m-%d %H:%M") if run.started else ""
    return (
        run.folder,
        run.state,
        step,
        "" if run.loss is None else f"{run.loss:.3f}",
        best,
        started,
        "" if run.duration_s is None else duration(run.duration_s),
        run.commit,
        run.hardware,
        run.data,
    )


def as_json(runs: Sequence[ListedRun]) -> str:
    return json.dumps([asdict(run) for run in runs], indent=1, ensure_ascii=False)
