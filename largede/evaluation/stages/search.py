"""Every set of queries, searched with every model."""

from largede.evaluation.evaluation import Evaluation
from largede.evaluation.stages.queries import query_vectors
from largede.evaluation.stages.said import said
from largede.files import remove_folder
from largede.retrieval.corpus import Benchmark
from largede.retrieval.encode import open_embeddings
from largede.retrieval.encoder import Model
from largede.retrieval.runs import write_run
from largede.retrieval.search.parts import search_together
from largede.stages import is_done, run_stage


def search_dense(evaluation: Evaluation) -> str:
    """Search every collection with every model."""
    done = [
        _search_one(evaluation, benchmark, system, model)
        for benchmark, models in evaluation.benchmarks()
        for system, model in models.items()
    ]
    return said(done, "dense run")


def _search_one(evaluation: Evaluation, benchmark: Benchmark, system: str, model: Model) -> bool:
    """Every process searches its own part of the shards; the first writes the run."""
    path = evaluation.run_path(benchmark, system)
    stamp, parts = path.with_suffix(".stamp.json"), path.with_suffix(".parts")
    embeddings = open_embeddings(evaluation.embeddings_path(system, model, benchmark), wait=True)
    inputs: dict[str, object] = {
        "embeddings": embeddings.fingerprint,
        "queries": benchmark.queries,
        "model": model.fingerprint,
        "tokens": benchmark.max_query_tokens,
        "depth": evaluation.job.depth,
        "search": evaluation.job.search.of_list(),
    }

    def work() -> None:
        vectors = query_vectors(evaluation, benchmark, system, model)
        ids, process, corpus = list(benchmark.queries), evaluation.process, benchmark.corpus
        job = evaluation.job
        run = search_together(embeddings, ids, vectors, job.depth, parts, process, corpus, job.search)
        if run is not None:
            write_run(path, run, system)

    if not evaluation.process.is_first:
        needed = not is_done(stamp, inputs, (path,))
        if needed:
            work()
        return needed
    done = run_stage(stamp, inputs, (path,), work)
    # After the stamp: a process that comes late finds either its part or the run.
    remove_folder(parts)
    return done
