"""One checkpoint of a run: export it, evaluate it, write its record. `largede watch` starts this as a process.

    RUN/evaluations/step-00001000.hold   the claim, held from beginning to end
    RUN/evaluations/step-00001000/       report.html, results.json, pictures; while at work model, embeddings, runs too
    RUN/evaluations/step-00001000.json   the record, written when everything else is there
    RUN/evaluations/bm25/                the lexical runs, made once

Killed at any point it leaves a claim that the next one finds abandoned, and no record.
"""

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from largede.errors import CheckpointError, LargedeError
from largede.evaluation.results.overview import overview_rows
from largede.files import read_json_object, remove_folder, writing
from largede.runs.claims import Claim
from largede.runs.evaluated import (
    PICTURES,
    Evaluated,
    fingerprint_of_checkpoint,
    hold_path,
    is_evaluated,
    write_record,
)
from largede.runs.files import CHECKPOINTS, EVALUATIONS

EXIT_HELD = 3
"""Another process is evaluating this checkpoint."""
EXIT_NO_CHECKPOINT = 4
"""The checkpoint is damaged, or has been removed meanwhile."""


@dataclass(frozen=True)
class CheckpointJob:
    """What to evaluate and how; plain values, for it travels to another process as JSON."""

    run: str
    checkpoint: str
    data: tuple[str, ...]
    metric: str = "ndcg@10"
    split: str | None = None
    bm25: bool = True
    max_query_tokens: int | None = None
    max_passage_tokens: int | None = None
    cache: str | None = None
    offline: bool = False
    device: str | None = None
    compute_dtype: str = "float32"
    threads: int | None = None
    nice: int = 0
    keep: bool = False

    @property
    def cache_folder(self) -> Path | None:
        return Path(self.cache) if self.cache else None

    @property
    def path(self) -> Path:
        return Path(self.run) / CHECKPOINTS / self.checkpoint

    @property
    def out(self) -> Path:
        return Path(self.run) / EVALUATIONS / self.checkpoint


def evaluate_checkpoint(job: CheckpointJob) -> int:
    """Evaluate unless that has been done; gives 0, EXIT_HELD or EXIT_NO_CHECKPOINT.

    Raises:
        LargedeError: the data or the machine cannot be used; the checkpoint may be evaluated again.
    """
    run = Path(job.run)
    claim = Claim(hold_path(run, job.checkpoint))
    if claim.take() is not None:
        return EXIT_HELD
    try:
        fingerprint = fingerprint_of_checkpoint(job.path)
        if not is_evaluated(run, job.checkpoint, fingerprint):
            write_record(run, _evaluate(job, fingerprint))
        if not job.keep:
            remove_leftovers(job.out)
    except CheckpointError as error:
        print(f"{job.checkpoint} is passed over: {error.given}", flush=True)
        return EXIT_NO_CHECKPOINT
    finally:
        claim.release()
    return 0


def _evaluate(job: CheckpointJob, fingerprint: str) -> Evaluated:
    from largede.evaluation.evaluate import Evaluation, open_evaluation, run_stages
    from largede.evaluation.watching.pictures import scores_png
    from largede.evaluation.watching.projector import write_points
    from largede.evaluation.watching.spread_of_scores import spread_of_scores
    from largede.training.export import export_checkpoint

    begun = time.time()
    job.out.mkdir(parents=True, exist_ok=True)
    remove_folder(job.out / "model")
    try:
        export_checkpoint(job.path, job.out / "model")
    except (OSError, LargedeError):
        fingerprint_of_checkpoint(job.path)  # taken away while it was read: that is no fault of the machine
        raise
    evaluation: Evaluation = open_evaluation(_evaluation_job(job))
    if job.bm25:
        _share_bm25(Path(job.run), evaluation)
    run_stages(evaluation)
    write_points(job.out, evaluation)
    scores = {task.test.name: spread_of_scores(evaluation, task) for task in evaluation.tasks}
    for name, spread in scores.items():
        with writing(job.out / PICTURES / f"{name}.png") as stream:
            stream.write(scores_png(spread, name))
    record = Evaluated(
        step=int(job.checkpoint.rpartition("-")[2]),
        checkpoint=job.checkpoint,
        metric=job.metric,
        value=0.0,
        figures=figures_of(read_json_object(job.out / "results.json")),
        fingerprint=fingerprint,
        time=begun,
        took_s=round(time.time() - begun, 1),
        scores=scores,
    )
    system, measure = system_and_measure(job.metric)
    return replace(record, value=record.mean(system, measure))


def _evaluation_job(job: CheckpointJob) -> Any:
    from largede.evaluation.datasets.collections import open_collections
    from largede.evaluation.job import EvaluationJob
    from largede.evaluation.report.curves import read_figures
    from largede.retrieval.bm25 import Bm25Settings
    from largede.retrieval.encoder import open_model

    model = open_model(job.out / "model", device=job.device, dtype=job.compute_dtype)
    return EvaluationJob(
        model=replace(model, name=job.checkpoint),
        data=open_collections(job.data, split=job.split, cache=job.cache_folder, offline=job.offline),
        out=job.out,
        bm25=(Bm25Settings(threads=job.threads or 2),) if job.bm25 else (),
        max_query_tokens=job.max_query_tokens,
        max_passage_tokens=job.max_passage_tokens,
        title=f"{Path(job.run).resolve().name}, {job.checkpoint}",
        curves=read_figures(Path(job.run)),
    )


def _share_bm25(run: Path, evaluation: Any) -> None:
    """Make the lexical runs if no one has, and set a copy of each where this evaluation looks for its own."""
    from largede.evaluation.baseline import run_bm25, run_path

    shared = run / EVALUATIONS / "bm25"
    claim = Claim(shared.with_suffix(".hold"))
    claim.take_in_turn()
    try:
        for benchmark, _ in evaluation.benchmarks():
            run_bm25(shared, benchmark, evaluation.job.bm25[0])
            own, found = run_path(evaluation.job.out, benchmark), run_path(shared, benchmark)
            own.parent.mkdir(parents=True, exist_ok=True)
            for suffix in (".trec", ".stamp.json"):
                shutil.copyfile(found.with_suffix(suffix), own.with_suffix(suffix))
    finally:
        claim.release()


def figures_of(results: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Means of results.json by collection, system and measure, the measures in lower case; of a group as a whole."""
    return {
        row["name"]: {
            system: {measure.lower(): found["mean"] for measure, found in measured.items()}
            for system, measured in row["figures"].items()
        }
        for row in overview_rows(results)
    }


def system_and_measure(metric: str) -> tuple[str, str]:
    """`ndcg@10` is that of the dense list, `fused-ndcg@10` of the fused one."""
    system, dash, measure = metric.partition("-")
    return (system, measure) if dash else ("dense", metric)


def remove_leftovers(out: Path) -> None:
    """What an evaluation needed on its way and nobody reads afterwards."""
    for name in ("model", "embeddings", "queries", "runs"):
        remove_folder(out / name)


def main() -> int:
    given = json.loads(sys.stdin.buffer.read())
    job = CheckpointJob(**{**given, "data": tuple(given["data"])})
    os.nice(job.nice)
    if job.threads:
        os.environ["OMP_NUM_THREADS"] = str(job.threads)
    try:
        return evaluate_checkpoint(job)
    except (LargedeError, OSError) as error:
        print(f"{job.checkpoint}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    from largede.verbs import enter

    enter(main)
