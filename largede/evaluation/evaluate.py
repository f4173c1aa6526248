"""A model and collections in, runs and figures out: the stages of `largede evaluate`, each on its own.

    evaluation = open_evaluation(job)
    run_stages(evaluation)          # or one by one: print(stage.run(evaluation)) for each stage of STAGES

Every stage gives one sentence about what it did, and does only what is missing or out of date.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from largede.evaluation.evaluation import Evaluation, open_evaluation
from largede.evaluation.results.overview import overview_rows
from largede.evaluation.stages.encode import encode
from largede.evaluation.stages.fusion import fuse_runs, read_weight
from largede.evaluation.stages.indexes import compare
from largede.evaluation.stages.lexical import rerank_bm25, search_bm25
from largede.evaluation.stages.report import report
from largede.evaluation.stages.said import LEFT_OUT
from largede.evaluation.stages.search import search_dense
from largede.files import read_json_object, remove_unfinished

__all__ = ["STAGES", "Evaluation", "Stage", "open_evaluation", "read_weight", "run_stages"]


@dataclass(frozen=True)
class Stage:
    """A `shared` one runs on every process, the others on the first alone."""

    name: str
    run: Callable[[Evaluation], str]
    shared: bool = False


STAGES = (
    Stage("encode", encode, shared=True),
    Stage("search", search_dense, shared=True),
    Stage("indexes", compare),
    Stage("BM25", search_bm25),
    Stage("fuse", fuse_runs),
    Stage("re-rank", rerank_bm25),
    Stage("report", report),
)


def run_stages(evaluation: Evaluation, name_width: int = 8) -> None:
    """All stages in order, a line with the time of each. Processes other than the first leave after searching."""
    begun = time.time()
    for stage in STAGES:
        if evaluation.process.is_first or stage.shared:
            begin = time.monotonic()
            said = stage.run(evaluation)
            if said != LEFT_OUT:
                print(f"{stage.name:<{name_width}} {time.monotonic() - begin:6.1f} s  {said}", flush=True)
    if evaluation.process.is_first:
        remove_unfinished(evaluation.job.out, begun)
        print("\n".join(figure_lines(read_json_object(evaluation.job.out / "results.json"))), flush=True)


def figure_lines(results: Mapping[str, Any]) -> list[str]:
    """The overview for a terminal: the first measure of every collection, and of every group as a whole."""
    labels = {system["key"]: system["label"] for system in results["systems"]}
    lines = []
    for row in overview_rows(results):
        measure = row["measures"][0]
        figures = "  ".join(f"{label} {row['figures'][key][measure]['mean']:.4f}" for key, label in labels.items())
        lines.append(f"{row['name']}  {measure}  {figures}")
    return lines
