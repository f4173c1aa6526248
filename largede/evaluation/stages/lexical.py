"""Every set of queries, searched with BM25, and the best of its lists in the model's order."""

from dataclasses import replace

from largede.evaluation.baseline import run_bm25
from largede.evaluation.bm25_tuning import tune_bm25
from largede.evaluation.evaluation import Evaluation, reranked
from largede.evaluation.stages.queries import query_vectors
from largede.evaluation.stages.said import LEFT_OUT, said
from largede.evaluation.task import Task
from largede.files import sha256_file
from largede.retrieval.bm25 import Bm25Settings
from largede.retrieval.encode import open_embeddings
from largede.retrieval.rerank import rerank
from largede.retrieval.runs import read_run, write_run
from largede.stages import run_stage


def search_bm25(evaluation: Evaluation) -> str:
    """Search every collection with BM25, and those that weights are chosen on."""
    job = evaluation.job
    if not job.bm25:
        return LEFT_OUT
    done = [
        run_bm25(job.out, benchmark, bm25_settings(evaluation, task, settings), job.bm25_index_cache)
        for settings in job.bm25
        for task in evaluation.tasks
        for benchmark in (task.test, task.dev)
        if benchmark and (benchmark is task.test or settings == job.bm25[0])
    ]
    return said(done, "BM25 run")


def bm25_settings(evaluation: Evaluation, task: Task, settings: Bm25Settings) -> Bm25Settings:
    """With the k1 and b that are best on the development split, where they are to be tuned and there is one."""
    if not evaluation.job.tune_bm25 or task.dev is None:
        return settings
    job = evaluation.job
    chosen = tune_bm25(job.out, task.dev, settings, task.tuned_by, job.bm25_index_cache)
    return replace(settings, k1=chosen.k1, b=chosen.b)


def tuned_bm25(evaluation: Evaluation, task: Task) -> dict[str, dict[str, float]]:
    """The k1 and b that each kind of BM25 was given for this collection."""
    found = {one.system: bm25_settings(evaluation, task, one) for one in evaluation.job.bm25}
    return {system: {"k1": settings.k1, "b": settings.b} for system, settings in found.items()}


def rerank_bm25(evaluation: Evaluation) -> str:
    """Put the best of BM25 in the order of the model under evaluation."""
    if not evaluation.job.rerank:
        return LEFT_OUT
    done = [_rerank_one(evaluation, task, depth) for depth in evaluation.job.rerank for task in evaluation.tasks]
    return said(done, "re-ranked run")


def _rerank_one(evaluation: Evaluation, task: Task, depth: int) -> bool:
    job = evaluation.job
    path = evaluation.run_path(task.test, reranked(depth))
    lexical = evaluation.run_path(task.test, job.bm25[0].system)
    embeddings = open_embeddings(evaluation.embeddings_path("dense", job.model, task.test))

    def work() -> None:
        vectors = query_vectors(evaluation, task.test, "dense", job.model)
        run = rerank(read_run(lexical), depth, embeddings, list(task.test.queries), vectors)
        write_run(path, run, reranked(depth))

    inputs = {
        "embeddings": embeddings.fingerprint,
        "queries": task.test.queries,
        "model": job.model.fingerprint,
        "tokens": task.test.max_query_tokens,
        "depth": depth,
        "bm25": sha256_file(lexical),
    }
    return run_stage(path.with_suffix(".stamp.json"), inputs, (path,), work)
