"""k1 and b of BM25, chosen on queries that are not reported."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from largede.errors import DataError
from largede.evaluation.measures.metrics import mean, per_query
from largede.evaluation.task import Task
from largede.files import fingerprint_of, read_json_object, write_json
from largede.retrieval.bm25 import Bm25Run, Bm25Settings, anserini_version, bm25_searches
from largede.retrieval.corpus import Benchmark
from largede.retrieval.runs import read_run
from largede.stages import run_stage

K1 = (0.3, 0.6, 0.9, 1.2, 1.6, 2.0, 3.0)
B = (0.0, 0.2, 0.4, 0.6, 0.75, 0.9, 1.0)

MOST_QUERIES = 1000
"""Of a larger development split this many are drawn: a grid over all of them would take hours and gain nothing."""


@dataclass(frozen=True)
class Bm25Choice:
    """k1 and b, where they were chosen, by which measure, and that measure for each (k1, b) of the grid."""

    k1: float
    b: float
    chosen_on: str
    measure: str = ""
    grid: tuple[tuple[float, float, float], ...] = ()


def untuned(settings: Bm25Settings) -> Bm25Choice:
    return Bm25Choice(settings.k1, settings.b, "no development split: not tuned")


def check_tunable(tasks: Sequence[Task]) -> None:
    """Raise DataError when there is nothing that k1 and b could be chosen on, or only queries that are reported."""
    for task in tasks:
        task.check_untouched()
    if not any(task.dev for task in tasks):
        raise DataError(
            f"nothing to tune BM25 on: no development split in {', '.join(task.test.name for task in tasks)}",
            expected="qrels/dev.tsv in one collection at least",
            mend="leave out --tune or --tune-bm25",
        )


def tune_bm25(
    out: Path, dev: Benchmark, settings: Bm25Settings, measure: str, index_cache: Path | None = None
) -> Bm25Choice:
    """The k1 and b with the best mean of `measure` on a development split.

    Equal figures are decided towards `settings`' own k1, then b, then towards the smaller. One JVM searches for the
    whole grid; points that are searched already stay when this is killed, and a finished grid is not done again.
    """
    name = f"{settings.system}.tuning"
    folder = out / "runs" / dev.name / dev.split
    queries, said = _drawn(dev)
    inputs: dict[str, object] = {
        "corpus": dev.corpus.fingerprint,
        "queries": queries,
        "qrels": dev.qrels,
        "anserini": anserini_version(),
        "fields": settings.fields,
        "measure": measure,
        "grid": [K1, B, settings.k1, settings.b],
    }
    path = folder / f"{name}.json"
    points = folder / f"{name}.{fingerprint_of(inputs)[:12]}"

    def work() -> None:
        grid = _search_grid(points, replace(dev, queries=queries), settings, measure, index_cache)
        k1, b = best_point(grid, settings)
        write_json(path, asdict(Bm25Choice(k1, b, said, measure, tuple(grid))))
        shutil.rmtree(points)

    run_stage(path.with_suffix(".stamp.json"), inputs, (path,), work)
    found = read_json_object(path)
    return Bm25Choice(**found | {"grid": tuple((k1, b, figure) for k1, b, figure in found["grid"])})


def best_point(grid: Sequence[tuple[float, float, float]], settings: Bm25Settings) -> tuple[float, float]:
    best = max(grid, key=lambda p: (round(p[2], 9), -abs(p[0] - settings.k1), -abs(p[1] - settings.b), -p[0], -p[1]))
    return best[0], best[1]


def grid_lines(choice: Bm25Choice, title: str) -> list[str]:
    """The grid as a table: a line for each k1, a column for each b, the chosen point marked."""
    figures = {(k1, b): figure for k1, b, figure in choice.grid}
    columns = sorted({b for _, b in figures})
    lines = [f"{title}: {choice.measure} on {choice.chosen_on}", "  k1 \\ b" + "".join(f"{b:>9g}" for b in columns)]
    for k1 in sorted({k1 for k1, _ in figures}):
        cells = [f"{figures[k1, b]:.4f}{'*' if (k1, b) == (choice.k1, choice.b) else ' '}" for b in columns]
        lines.append(f"  {k1:>6g}" + "".join(f"{cell:>9}" for cell in cells))
    return lines


def _drawn(dev: Benchmark) -> tuple[dict[str, str], str]:
    """The queries of the grid, always the same of the same split, and a word about them."""
    where = f"queries of {dev.name}, split {dev.split}"
    if len(dev.queries) <= MOST_QUERIES:
        return dev.queries, f"{len(dev.queries):,} {where}"
    kept = set(random.Random(0).sample(sorted(dev.queries), MOST_QUERIES))
    return {id_: text for id_, text in dev.queries.items() if id_ in kept}, (
        f"{MOST_QUERIES:,} of {len(dev.queries):,} {where}"
    )


def _search_grid(
    folder: Path, dev: Benchmark, settings: Bm25Settings, measure: str, index_cache: Path | None
) -> list[tuple[float, float, float]]:
    """The measure at every point. Runs are named by their point and whole once they have their name."""
    k1s, bs = sorted({*K1, settings.k1}), sorted({*B, settings.b})
    runs = [Bm25Run(k1, b, folder / f"k1-{k1:g}-b-{b:g}.trec") for k1 in k1s for b in bs]
    missing = [run for run in runs if not run.path.is_file()]
    bm25_searches(dev.corpus, dev.queries, index_cache, missing, replace(settings, depth=_depth(measure, settings)))
    qrels = {query: dev.qrels[query] for query in dev.queries}
    return [(run.k1, run.b, mean(per_query(read_run(run.path), qrels, (measure,))[measure])) for run in runs]


def _depth(measure: str, settings: Bm25Settings) -> int:
    """As deep as the measure looks, and one more: the document with the query's own id is taken out of these."""
    cut = measure.rpartition("@")[2]
    return int(cut) + 1 if cut.isdecimal() else settings.depth
