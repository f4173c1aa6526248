"""What is known of a run's checkpoints: one record for each that was evaluated, the best of them, and no progress."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from largede.errors import CheckpointError
from largede.files import as_kind, sha256_file, write_json
from largede.runs.claims import is_held
from largede.runs.files import ASKED_TO_STOP, BEST, EVALUATION_EVENTS, EVALUATIONS, TENSORBOARD

RECORDS = "step-????????.json"
# In the folder of an evaluation:
POINTS, LABELS, PICTURES = "points.tsv", "labels.tsv", "pictures"


@dataclass(frozen=True)
class Evaluated:
    """One checkpoint's figures. The larger `value`, which is that of `metric`, the better the checkpoint.

    `figures` are means by collection, system (dense, bm25, fused) and measure; `scores` by collection how the scores
    of relevant and of other passages are spread; `fingerprint` that of the checkpoint's state.json: a step that was
    trained again is another checkpoint. `time` is unix time.
    """

    step: int
    checkpoint: str
    metric: str
    value: float
    figures: dict[str, dict[str, dict[str, float]]]
    fingerprint: str
    time: float
    took_s: float = 0.0
    scores: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def mean(self, system: str, measure: str) -> float:
        """Over the collections."""
        found = [systems[system][measure] for systems in self.figures.values()]
        return sum(found) / len(found)


def record_path(run: Path, checkpoint: str) -> Path:
    return run / EVALUATIONS / f"{checkpoint}.json"


def hold_path(run: Path, checkpoint: str) -> Path:
    """The claim of whoever evaluates this checkpoint; retention leaves the checkpoint alone while it is fresh."""
    return run / EVALUATIONS / f"{checkpoint}.hold"


def watchers_folder(run: Path) -> Path:
    """Every `largede watch` that follows the run has a claim of its own in it."""
    return run / EVALUATIONS / "watchers"


def is_watched(run: Path) -> bool:
    return any(is_held(path) for path in watchers_folder(run).glob("*.json"))


def write_record(run: Path, record: Evaluated) -> None:
    write_json(record_path(run, record.checkpoint), asdict(record))


def read_record(path: Path) -> Evaluated | None:
    """None when there is none, or none that can be read: it will be made again."""
    try:
        return as_kind(Evaluated, json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def read_records(run: Path) -> list[Evaluated]:
    """All records of a run by step."""
    found = (read_record(path) for path in sorted((run / EVALUATIONS).glob(RECORDS)))
    return sorted((record for record in found if record is not None), key=lambda record: record.step)


def fingerprint_of_checkpoint(path: Path) -> str:
    """Of its state.json, which holds the checksums of all its files. Raises CheckpointError when there is none."""
    try:
        return sha256_file(path / "state.json")
    except OSError:
        raise CheckpointError(
            f"{path} is gone, or was never finished", expected="a state.json in it", mend="name another checkpoint"
        ) from None


def is_evaluated(run: Path, checkpoint: str, fingerprint: str) -> bool:
    record = read_record(record_path(run, checkpoint))
    return record is not None and record.fingerprint == fingerprint


def best_of(records: Sequence[Evaluated]) -> Evaluated | None:
    """The largest value; the earlier step at equal values."""
    return max(records, key=lambda record: (record.value, -record.step), default=None)


def steps_without_progress(records: Sequence[Evaluated], min_delta: float, since_step: int = -1) -> int:
    """How many of the last records did not exceed the best before them by more than `min_delta`.

    Only records after `since_step` count; what they are compared with are all before them.
    """
    best, count = float("-inf"), 0
    for record in sorted(records, key=lambda record: record.step):
        if record.value > best + min_delta:
            best, count = record.value, 0
        elif record.step > since_step:
            count += 1
    return count


def drop_later_records(run: Path, step: int) -> None:
    """Forget what was measured of checkpoints after `step`, which a run that goes on from there makes anew."""
    later = [record for record in read_records(run) if record.step > step]
    for record in later:
        record_path(run, record.checkpoint).unlink(missing_ok=True)
    if later:
        for events in (run / TENSORBOARD).glob(f"{EVALUATION_EVENTS}.*"):
            events.unlink(missing_ok=True)  # a watch writes them from the records
        (run / EVALUATIONS / ASKED_TO_STOP).unlink(missing_ok=True)
        (run / BEST).unlink(missing_ok=True)
        mark_best(run, read_records(run))


def mark_best(run: Path, records: Sequence[Evaluated]) -> Evaluated | None:
    """Keep best.json at the best record; gives it."""
    best = best_of(records)
    if best is not None:
        value: dict[str, Any] = {
            "checkpoint": best.checkpoint,
            "step": best.step,
            "metric": best.metric,
            "value": best.value,
        }
        if not (run / BEST).is_file() or (run / BEST).read_text(encoding="utf-8") != json.dumps(value) + "\n":
            write_json(run / BEST, value, indent=None)
    return best
