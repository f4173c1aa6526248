"""BM25 on its own: the lexical baseline of any collection in BEIR format, with Anserini's parameters or tuned ones."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from largede.evaluation.bm25_tuning import Bm25Choice, check_tunable, grid_lines, tune_bm25, untuned
from largede.evaluation.datasets.benchmarks import open_collection
from largede.evaluation.datasets.collection import Collection
from largede.evaluation.measures.metrics import interval
from largede.evaluation.task import Task
from largede.files import write_json
from largede.retrieval.bm25 import Bm25Settings, anserini_version, bm25_search
from largede.retrieval.corpus import Benchmark, Corpus
from largede.retrieval.runs import read_run
from largede.runs.provenance import provenance
from largede.stages import run_stage


def open_lexical_task(collection: Collection, corpora: dict[Path, Corpus] | None = None, *, dev: bool) -> Task:
    """A collection with its own measures and Recall@1000; its development split only where it is wanted."""
    opened = open_collection(collection if dev else replace(collection, dev_split=None), corpora)
    measures = collection.measures if opened.answers else tuple(dict.fromkeys([*collection.measures, "Recall@1000"]))
    return Task(opened.test, opened.dev, measures, collection.relevant_from, collection.group, opened.answers)


def run_path(out: Path, benchmark: Benchmark, system: str = "bm25") -> Path:
    """Where the ranked lists of a system lie in an output folder."""
    return out / "runs" / benchmark.name / benchmark.split / f"{system}.trec"


def run_bm25(out: Path, benchmark: Benchmark, settings: Bm25Settings, index_cache: Path | None = None) -> bool:
    """Write the BM25 run of a benchmark under `out`, unless it is there already; tell whether it was made now.

    The index lies in `index_cache`, or in the cache that all commands share.
    """
    path = run_path(out, benchmark, settings.system)
    inputs = {
        "corpus": benchmark.corpus.fingerprint,
        "queries": benchmark.queries,
        "anserini": anserini_version(),
        "fields": settings.fields,
        "k1": settings.k1,
        "b": settings.b,
        "depth": settings.depth,
    }

    def work() -> None:
        bm25_search(benchmark.corpus, benchmark.queries, index_cache, path, settings)

    return run_stage(path.with_suffix(".stamp.json"), inputs, (path,), work)


def bm25_baseline(
    tasks: Sequence[Task],
    out: Path,
    settings: Sequence[Bm25Settings],
    *,
    tune: bool = False,
    index_cache: Path | None = None,
) -> dict[str, Any]:
    """Run BM25 on every collection with every one of `settings` (flat, multifield) and write `bm25.json`.

    It holds, by collection and system, the figures with their intervals, k1 and b, and with `tune` the grid they were
    chosen from. Raises DataError when tuning is asked for and no collection has other queries to tune on.
    """
    for task in tasks:
        task.check_judgements()
    if tune:
        check_tunable(tasks)
    found: dict[str, Any] = {}
    for task in tasks:
        for one in settings:
            choice = tune_bm25(out, task.dev, one, task.tuned_by, index_cache) if tune and task.dev else None
            chosen = replace(one, k1=choice.k1, b=choice.b) if choice else one
            run_bm25(out, task.test, chosen, index_cache)
            values = task.values(read_run(run_path(out, task.test, one.system)))
            found.setdefault(task.test.name, {})[one.system] = {
                "figures": {measure: asdict(interval(column)) for measure, column in values.items()},
                "k1": chosen.k1,
                "b": chosen.b,
                "tuning": asdict(choice or untuned(one)) if tune else None,
            }
    results = {
        "splits": {task.test.name: task.test.split for task in tasks},
        "systems": found,
        "settings": [asdict(one) for one in settings],
        "anserini": anserini_version(),
        "about": provenance(),
    }
    write_json(out / "bm25.json", results)
    return results


def baseline_lines(results: dict[str, Any]) -> list[str]:
    """What the terminal shows: a line of figures for each collection and system, and the grids."""
    lines = []
    for name, systems in results["systems"].items():
        for system, found in systems.items():
            figures = "  ".join(f"{measure} {one['mean']:.4f}" for measure, one in found["figures"].items())
            tuning = found["tuning"]
            if tuning and tuning["grid"]:
                lines += grid_lines(Bm25Choice(**tuning), f"{name}  {system}")
            lines.append(f"{name}  {system}  k1 {found['k1']:g}  b {found['b']:g}  {figures}")
            if tuning and not tuning["grid"]:
                lines[-1] += f"  ({tuning['chosen_on']})"
    return lines
