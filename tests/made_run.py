"""Run folders without a training: what a run of that kind would have written."""

import json
from pathlib import Path
from typing import Any

from largede.evaluation.watching.checkpoint_evaluation import CheckpointJob
from largede.files import write_json
from largede.runs.evaluated import Evaluated, fingerprint_of_checkpoint, write_record
from largede.runs.files import RunState, write_run_state


def make_run(folder: Path, steps: int = 100, **facts: Any) -> Path:
    known = {
        "largede": "0.1.0, commit 0123456789ab",
        "data_fingerprint": "feedbeef" * 8,
        "world_size": 2,
        "hosts": [{"name": "node1", "hardware": "2 CPU cores (a kind), 24 GiB memory", "ranks": 2}],
        "steps": steps,
        "begun": 1_700_000_000.0,
        "part": 1,
    }
    write_json(folder / "run.json", {**known, **facts})
    return folder


def say_state(run: Path, state: str, step: int, why: str = "") -> None:
    write_run_state(run, RunState(state, step, 100, 1_700_000_100.0, 1_700_003_600.0, "node1", 1, why))


def make_checkpoint(run: Path, step: int, content: str = "") -> str:
    name = f"step-{step:08d}"
    (run / "checkpoints" / name).mkdir(parents=True)
    write_json(run / "checkpoints" / name / "state.json", {"step": step, "content": content})
    return name


def made_record(job: CheckpointJob, value: float) -> Evaluated:
    step = int(job.checkpoint[5:])
    figures = {"small": {"dense": {"ndcg@10": value, "recall@100": value, "mrr@10": value}}}
    scores = {"small": {"edges": [0.0, 0.5, 1.0], "relevant": [1, 3], "other": [4, 0]}}
    made = fingerprint_of_checkpoint(job.path)
    return Evaluated(step, job.checkpoint, "ndcg@10", value, figures, made, 1_700_000_000.0 + step, 1.0, scores)


class MadeEvaluations:
    """Stands for the process that evaluates: writes a record with the value given for the step, and keeps count."""

    def __init__(self, values: dict[int, float]) -> None:
        self.values = values
        self.done: list[str] = []
        self.statuses: dict[str, list[int]] = {}

    def __call__(self, job: CheckpointJob) -> int:
        self.done.append(job.checkpoint)
        planned = self.statuses.get(job.checkpoint, [])
        if planned:
            return planned.pop(0)
        write_record(Path(job.run), made_record(job, self.values[int(job.checkpoint[5:])]))
        return 0


def write_figures(run: Path, step: int, loss: float) -> None:
    with (run / "figures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "time_s": 1.0, "loss/contrastive": loss}) + "\n")
