"""What the kinds of index find of the exact lists, take in time and cost in memory, for each collection."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from largede.evaluation.evaluation import Evaluation
from largede.evaluation.stages.queries import query_vectors
from largede.evaluation.stages.said import LEFT_OUT, said
from largede.evaluation.task import Task
from largede.files import read_json_object, write_json
from largede.retrieval.encode import open_embeddings
from largede.stages import run_stage


def compare(evaluation: Evaluation) -> str:
    """Build every kind of index that was asked for over the model's vectors, and search it beside the exact one."""
    if not evaluation.job.compared:
        return LEFT_OUT
    return said([_compare_one(evaluation, task) for task in evaluation.tasks], "comparison")


def read_comparisons(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The rows of all collections that `compare` wrote; none where it was left out."""
    if not evaluation.job.compared:
        return []
    return [
        {"dataset": task.test.name} | row
        for task in evaluation.tasks
        for row in read_json_object(_path(evaluation, task))["indexes"]
    ]


def _compare_one(evaluation: Evaluation, task: Task) -> bool:
    from largede.retrieval.search.compare import compare_indexes

    job = evaluation.job
    path = _path(evaluation, task)
    embeddings = open_embeddings(evaluation.embeddings_path("dense", job.model, task.test))

    def work() -> None:
        vectors = query_vectors(evaluation, task.test, "dense", job.model)
        found = compare_indexes(
            embeddings, list(task.test.queries), vectors, job.compared, job.search, corpus=task.test.corpus
        )
        write_json(path, found)

    inputs: dict[str, object] = {
        "embeddings": embeddings.fingerprint,
        "queries": task.test.queries,
        "model": job.model.fingerprint,
        "tokens": task.test.max_query_tokens,
        "kinds": job.compared,
        "settings": asdict(job.search),
    }
    return run_stage(path.with_suffix(".stamp.json"), inputs, (path,), work)


def _path(evaluation: Evaluation, task: Task) -> Path:
    return evaluation.job.out / "indexes" / f"{task.test.name.replace('/', '--')}.json"
