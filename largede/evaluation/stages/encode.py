"""Every corpus by every model, shared among the processes."""

import sys
from collections.abc import Iterator
from pathlib import Path

from largede.evaluation.evaluation import Evaluation
from largede.retrieval.corpus import Benchmark
from largede.retrieval.encode import encode_corpus, open_embeddings
from largede.retrieval.encoder import Model
from largede.retrieval.search import check_settings


def encode(evaluation: Evaluation) -> str:
    """Embed every corpus with every model."""
    done = total = 0
    for folder, model, benchmark in _encodings(evaluation):
        settings = evaluation.encode_settings(benchmark)
        if not (folder / "manifest.json").is_file():
            _check_fit(evaluation, model, benchmark)
        done += encode_corpus(model, benchmark.corpus, folder, settings, evaluation.process)
        total += len(benchmark.corpus)
    if not evaluation.process.is_first:
        return f"{done:,} passages embedded by process {evaluation.process.rank}"
    for folder, _, _ in _encodings(evaluation):
        open_embeddings(folder, wait=True)
        _name_outdated(folder)
    return f"{done:,} passages embedded" if done else f"{total:,} embeddings unchanged, skipped"


def _check_fit(evaluation: Evaluation, model: Model, benchmark: Benchmark) -> None:
    """What does not fit the model is refused before hours of encoding: widths of indexes, lengths of queries."""
    encoder = model.load()
    for settings in evaluation.index_settings():
        check_settings(settings, len(benchmark.corpus), encoder.dimension)
    for query in list(benchmark.queries.values())[:1]:
        encoder.embed([query], "query", benchmark.max_query_tokens)


def _encodings(evaluation: Evaluation) -> Iterator[tuple[Path, Model, Benchmark]]:
    seen = set()
    for benchmark, models in evaluation.benchmarks():
        for system, model in models.items():
            folder = evaluation.embeddings_path(system, model, benchmark)
            if folder not in seen:
                seen.add(folder)
                yield folder, model, benchmark


def _name_outdated(folder: Path) -> None:
    """Say which embeddings of the same collection by the same system an older model or setting left behind.

    They stay: they may be days of work, and another command may want them.
    """
    prefix = folder.name.rsplit(".", 1)[0]
    for other in sorted(folder.parent.iterdir()):
        if other.name != folder.name and other.name.rsplit(".", 1)[0] == prefix and (other / "settings.json").is_file():
            print(
                f"{other} is of another model, corpus or setting; remove it if it is no longer wanted", file=sys.stderr
            )
