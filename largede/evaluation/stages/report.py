"""Figures and the page, from the ranked lists."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from largede.evaluation.evaluation import Evaluation
from largede.evaluation.report import write_report
from largede.evaluation.report.examples import HITS, Searched, choose_examples
from largede.evaluation.report.write import NAMES
from largede.evaluation.results.collect import Measured, collect_results
from largede.evaluation.results.lengths import DEPTH, retrieved_lengths
from largede.evaluation.stages.fusion import read_weight
from largede.evaluation.stages.indexes import read_comparisons
from largede.evaluation.stages.lexical import tuned_bm25
from largede.evaluation.task import Task
from largede.files import sha256_file
from largede.retrieval.runs import read_run
from largede.runs.provenance import provenance
from largede.stages import run_stage


def report(evaluation: Evaluation) -> str:
    """Write results.json, page.json, report.md and report.html."""
    job = evaluation.job
    page_path = job.out / "report.html"

    def work() -> None:
        found = [_measure(evaluation, task) for task in evaluation.tasks]
        measured, indexes = [measured for measured, _ in found], read_comparisons(evaluation)
        results = collect_results(job.title, evaluation.systems, measured, job.seed, indexes)
        results |= {"settings": _settings(evaluation), "about": job.about | provenance()}
        examples = choose_examples(results, [searched for _, searched in found], job.seed)
        write_report(job.out, results, examples, job.curves)

    paths = tuple(job.out / name for name in NAMES)
    done = run_stage(job.out / ".report.json", _report_inputs(evaluation), paths, work)
    return f"{page_path}" if done else f"{page_path} unchanged, skipped"


def _measure(evaluation: Evaluation, task: Task) -> tuple[Measured, Searched]:
    """The measures of every query by system, and the first hits. One run is in memory at a time."""
    test = task.test
    values, heads = {}, {}
    for system, path in _run_paths(evaluation, task).items():
        run = read_run(path)
        values[system] = task.values(run)
        heads[system] = {query: ranking.top(max(HITS, DEPTH)) for query, ranking in run.items()}
    qrels = task.judgements(heads.values())
    measured = Measured(
        name=test.name,
        split=test.split,
        fingerprint=test.fingerprint,
        documents=len(test.corpus),
        values=values,
        measures=task.measures,
        group=task.group,
        weight=read_weight(evaluation, task) if evaluation.job.bm25 else None,
        lengths=retrieved_lengths(test.corpus, heads, qrels, evaluation.job.seed),
    )
    return measured, Searched(test.name, test.queries, test.corpus, qrels, heads)


def _run_paths(evaluation: Evaluation, task: Task) -> dict[str, Path]:
    return {system.key: evaluation.run_path(task.test, system.key) for system in evaluation.systems}


def _report_inputs(evaluation: Evaluation) -> dict[str, object]:
    job = evaluation.job
    return {
        "runs": [sha256_file(path) for task in evaluation.tasks for path in _run_paths(evaluation, task).values()],
        "weights": [asdict(read_weight(evaluation, task)) for task in evaluation.tasks if job.bm25],
        "data": [[t.test.fingerprint, t.measures, t.relevant_from, t.group, t.answers] for t in evaluation.tasks],
        "indexes": read_comparisons(evaluation),
        "systems": [asdict(system) for system in evaluation.systems],
        "title": job.title,
        "about": job.about,
        "settings": _settings(evaluation),
        "curves": job.curves,
    }


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    job, tests = evaluation.job, [task.test for task in evaluation.tasks]
    return {
        "model": job.model.name,
        "model_fingerprint": job.model.fingerprint,
        "baselines": {model.name: model.fingerprint for model in job.baselines},
        "tokens": {test.name: [test.max_query_tokens, test.max_passage_tokens] for test in tests},
        "stored": job.store_dtype,
        "search": job.search.of_list(),
        "depth": job.depth,
        "seed": job.seed,
        "bm25": {one.system: {"k1": one.k1, "b": one.b} for one in job.bm25} or None,
        "bm25_tuned": {task.test.name: tuned_bm25(evaluation, task) for task in evaluation.tasks if job.tune_bm25},
        "fusion": job.fusion if job.bm25 else None,
    }
