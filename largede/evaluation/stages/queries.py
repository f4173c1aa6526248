"""The vectors of each set of queries: made once, by the first process, and read wherever they are needed."""

import io
from pathlib import Path

import numpy as np

from largede.arrays import save_array
from largede.evaluation.evaluation import Evaluation
from largede.retrieval.corpus import Benchmark
from largede.retrieval.encoder import Model, embed_checked
from largede.stages import run_stage, wait_for_stage


def query_vectors(evaluation: Evaluation, benchmark: Benchmark, system: str, model: Model) -> np.ndarray:
    """Float32 (queries, dimension), in the order of `benchmark.queries`; other processes wait for them."""
    path = evaluation.queries_path(system, benchmark)
    stamp = path.with_suffix(".stamp.json")
    inputs: dict[str, object] = {
        "queries": benchmark.queries,
        "model": model.fingerprint,
        "tokens": benchmark.max_query_tokens,
    }
    if evaluation.process.is_first:
        run_stage(stamp, inputs, (path,), lambda: _write(path, benchmark, model))
    else:
        wait_for_stage(stamp, inputs)
    vectors: np.ndarray = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    return vectors


def _write(path: Path, benchmark: Benchmark, model: Model) -> None:
    vectors = embed_checked(model.load(), list(benchmark.queries.values()), "query", benchmark.max_query_tokens)
    save_array(path, vectors)
