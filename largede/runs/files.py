"""The files of a run folder that more programs than one read and write.

lock.json       the claim of the run that is at work in the folder
state.json      what it is doing; see RunState
stop.json       somebody asks the run to save and leave: {"reason": …, "by": …, "step": …, "time": …}
run.json        what it was begun or last continued with; recipe.yaml beside it, each part's own under parts/
figures.jsonl   the figures of TensorBoard, a line for each point
ranks.json      where each rank's time goes, as of the last point
heartbeats/     signs of life of the ranks, while the run is at work; hangs/ what they were doing when it hung
checkpoints/    step-00001000 …; latest.json names the newest, for people and scripts
readers/        who exports a checkpoint right now; it stays as long
evaluations/    step-00001000.json …, by `largede watch`; best.json beside evaluations/ names the best
negatives.json  which refreshed hard negatives the run reads from which batch on; negatives/ holds them
tensorboard/    event files
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from largede.files import as_kind, damaged_file, read_json_object, write_json
from largede.runs.claims import is_held

LOCK = "lock.json"
STATE = "state.json"
STOP = "stop.json"
BEST = "best.json"
EVALUATIONS = "evaluations"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
FIGURES = "figures.jsonl"
RANKS = "ranks.json"
RUN = "run.json"
PARTS = "parts"
HANGS = "hangs"
READERS = "readers"
# In tensorboard/ and evaluations/, by `largede watch`:
EVALUATION_EVENTS = "events.out.tfevents.0000000001"
ASKED_TO_STOP = "asked_to_stop.json"

ENDED = frozenset(["finished", "stopped", "failed"])


@dataclass(frozen=True)
class RunState:
    """What a run says of itself: running, finished, stopped (`why`: a signal, or watch) or failed (`why`: the error).

    `time` is when it came to that, `heartbeat` when the file was written; both unix time.
    """

    state: str
    step: int
    steps: int
    time: float
    heartbeat: float
    host: str
    pid: int
    why: str = ""


def read_run_state(run: Path) -> RunState | None:
    """None when the run has not said anything. Raises DataError when the file is damaged."""
    path, mend = run / STATE, f"remove {STATE}, and nothing else: the run writes it anew when it next starts"
    if not path.is_file():
        return None
    found = read_json_object(path, mend)
    try:
        return as_kind(RunState, found)
    except TypeError as error:
        raise damaged_file(path, str(error), mend) from None


def write_run_state(run: Path, state: RunState) -> None:
    write_json(run / STATE, asdict(state))


def life_of(run: Path, said: RunState | None) -> str:
    """running, finished, stopped, failed, died (it says running, and nobody holds the folder), or unknown."""
    if said is None:
        return "unknown"
    if said.state == "running" and not is_held(run / LOCK):
        return "died"
    return said.state


def words_of_hang(run: Path, since: float) -> str:
    """What the watchdog found out about the newest hang after `since` (unix time): in which, and who; "" if none."""
    verdicts = [(path.stat().st_mtime, path) for path in (run / HANGS).glob("*/verdict.txt")]
    last, path = max(verdicts, default=(0.0, run))
    if last < since or path == run:
        return ""
    return " ".join(line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[:2])


def ask_to_stop(run: Path, reason: str, by: str, step: int) -> None:
    """Have the run save after its step and leave; it does not go on while the file is there."""
    write_json(run / STOP, {"reason": reason, "by": by, "step": step, "time": time.time()})


def line_of_figures(line: bytes) -> dict[str, Any] | None:
    """One line of figures.jsonl; None when it is cut off by a kill, or is something else."""
    try:
        found = json.loads(line.decode())
        return found if math.isfinite(found["step"]) else None
    except (ValueError, TypeError, KeyError):
        return None


def stop_reason(run: Path) -> str:
    """Why the run is asked to stop; "" when it is not. A file put there by hand needs no content, and no permissions.

    A disk that is away for a moment asks nobody to stop.
    """
    try:
        return str(json.loads((run / STOP).read_bytes())["reason"])
    except (ValueError, TypeError, KeyError, PermissionError, IsADirectoryError):
        return f"{STOP} was put there"
    except OSError:
        return ""
