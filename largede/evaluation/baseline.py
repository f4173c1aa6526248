"""BM25 on its own: the lexical baseline of any collection in BEIR format."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from largede.evaluation.metrics import MEASURES, interval, per_query
from largede.evaluation.stages import run_stage
from largede.files import write_json
from largede.retrieval.bm25 import Bm25Settings, bm25_search
from largede.retrieval.corpus import Benchmark, open_benchmark
from largede.retrieval.runs import read_run
from largede.runs.provenance import provenance

BASELINE_MEASURES = (*MEASURES, "Recall@1000")


def bm25_path(out: Path, benchmark: Benchmark) -> Path:
    return out / "runs" / benchmark.name / benchmark.split / "bm25.trec"


def run_bm25(out: Path, benchmark: Benchmark, settings: Bm25Settings) -> bool:
    """Write the BM25 run of a benchmark under `out`, unless it is there already; tell whether it was made now."""
    path = bm25_path(out, benchmark)
    inputs = {
        "corpus": benchmark.corpus.fingerprint,
        "queries": benchmark.queries,
        "k1": settings.k1,
        "b": settings.b,
        "depth": settings.depth,
    }

    def work() -> None:
        bm25_search(benchmark.corpus, benchmark.queries, out / "bm25-index", path, settings)

    return run_stage(path.with_suffix(".stamp.json"), inputs, (path,), work)


def bm25_baseline(data: tuple[Path, ...], out: Path, split: str, settings: Bm25Settings) -> dict[str, Any]:
    """Run BM25 on every collection and write `bm25.json`: figures by collection and measure, with intervals."""
    benchmarks = [open_benchmark(folder, split) for folder in data]
    figures = {}
    for benchmark in benchmarks:
        run_bm25(out, benchmark, settings)
        values = per_query(read_run(bm25_path(out, benchmark)), benchmark.qrels, BASELINE_MEASURES)
        figures[benchmark.name] = {measure: asdict(interval(found)) for measure, found in values.items()}
    results = {"split": split, "figures": figures, "settings": asdict(settings), "about": provenance()}
    write_json(out / "bm25.json", results)
    return results
