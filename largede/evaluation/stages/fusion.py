"""The dense and the BM25 list of each collection into one: by rank alone, and with a weight chosen on other queries."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from largede.evaluation.evaluation import Evaluation
from largede.evaluation.stages.said import LEFT_OUT, said
from largede.evaluation.task import Task
from largede.evaluation.weight import UNCHOSEN, FusionWeight, choose_weight
from largede.files import read_json_object, sha256_file, write_json
from largede.retrieval.corpus import Benchmark
from largede.retrieval.fuse import fuse, reciprocal_rank
from largede.retrieval.runs import Run, read_run, write_run
from largede.stages import run_stage


def fuse_runs(evaluation: Evaluation) -> str:
    """Choose the weight of each collection and fuse its two lists, with it and without."""
    if not evaluation.job.bm25:
        return LEFT_OUT
    done = [fused(evaluation, task) for task in evaluation.tasks for fused in (_fuse_by_rank, _fuse_by_weight)]
    weights = ", ".join(f"{read_weight(evaluation, task).weight:.2f}" for task in evaluation.tasks)
    return f"{said(done, 'fused run')}; dense weight {weights}"


def read_weight(evaluation: Evaluation, task: Task) -> FusionWeight:
    """The weight that `fuse_runs` chose."""
    found = read_json_object(_weight_path(evaluation, task))
    return FusionWeight(found["weight"], found["chosen_on"], tuple((w, figure) for w, figure in found["curve"]))


def _fuse_by_rank(evaluation: Evaluation, task: Task) -> bool:
    path = evaluation.run_path(task.test, "rrf")
    depth = evaluation.job.depth
    inputs: dict[str, object] = {"runs": _run_hashes(evaluation, task.test), "depth": depth}
    return _stage(
        path, inputs, (path,), lambda: write_run(path, reciprocal_rank(_two(evaluation, task.test), depth), "rrf")
    )


def _fuse_by_weight(evaluation: Evaluation, task: Task) -> bool:
    job = evaluation.job
    path, weight_path = evaluation.run_path(task.test, "fused"), _weight_path(evaluation, task)

    def work() -> None:
        chosen = _choose(evaluation, task, task.dev) if task.dev else UNCHOSEN
        dense, bm25 = _two(evaluation, task.test)
        write_json(weight_path, asdict(chosen))
        write_run(path, fuse(dense, bm25, chosen.weight, job.depth, job.fusion), "fused")

    inputs: dict[str, object] = {"runs": _run_hashes(evaluation, task.test), "depth": job.depth, "kind": job.fusion}
    if task.dev:
        dev = [_run_hashes(evaluation, task.dev), task.dev.fingerprint, task.tuned_by]
        inputs |= {"dev": dev}
    return _stage(path, inputs, (path, weight_path), work)


def _stage(path: Path, inputs: dict[str, object], outputs: tuple[Path, ...], work: Callable[[], None]) -> bool:
    return run_stage(path.with_suffix(".stamp.json"), inputs, outputs, work)


def _choose(evaluation: Evaluation, task: Task, dev: Benchmark) -> FusionWeight:
    dense, bm25 = _two(evaluation, dev)
    chosen_on = f"{len(dev.queries):,} queries of {dev.name}, split {dev.split}"
    return choose_weight(dense, bm25, dev.qrels, chosen_on, evaluation.job.fusion, task.tuned_by)


def _two(evaluation: Evaluation, benchmark: Benchmark) -> tuple[Run, Run]:
    """The lists that are fused: the model's, and BM25's first kind."""
    dense, bm25 = (read_run(path) for path in _two_paths(evaluation, benchmark))
    return dense, bm25


def _two_paths(evaluation: Evaluation, benchmark: Benchmark) -> list[Path]:
    return [evaluation.run_path(benchmark, system) for system in ("dense", evaluation.job.bm25[0].system)]


def _weight_path(evaluation: Evaluation, task: Task) -> Path:
    return evaluation.run_path(task.test, "fused").with_suffix(".weight.json")


def _run_hashes(evaluation: Evaluation, benchmark: Benchmark) -> list[str]:
    return [sha256_file(path) for path in _two_paths(evaluation, benchmark)]
