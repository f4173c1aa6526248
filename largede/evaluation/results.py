"""The figures of an evaluation as one JSON value: what results.json holds and the report draws."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from largede.evaluation.metrics import MEASURES, PerQuery, intervals
from largede.evaluation.weight import FusionWeight
from largede.retrieval.corpus import Benchmark


@dataclass(frozen=True)
class System:
    """One way of searching: `key` names its files and figures, `label` is for people."""

    key: str
    label: str


@dataclass(frozen=True)
class Task:
    """What is reported, and what the fusion weight may be chosen on."""

    test: Benchmark
    dev: Benchmark | None


def collect_results(
    title: str,
    tasks: tuple[Task, ...],
    systems: tuple[System, ...],
    values: dict[str, dict[str, PerQuery]],
    weights: dict[str, FusionWeight],
    seed: int,
) -> dict[str, Any]:
    """Figures of every task. `values` and `weights` go by the name of the collection, `values` then by system."""
    datasets = [_dataset(task, systems, values[task.test.name], weights.get(task.test.name), seed) for task in tasks]
    return {"title": title, "measures": list(MEASURES), "systems": [asdict(s) for s in systems], "datasets": datasets}


def _dataset(
    task: Task, systems: tuple[System, ...], values: dict[str, PerQuery], weight: FusionWeight | None, seed: int
) -> dict[str, Any]:
    pairs = _comparisons(systems)
    figures = _figures(values, [(one.key, other.key) for one, other in pairs], seed)
    return {
        "name": task.test.name,
        "split": task.test.split,
        "fingerprint": task.test.fingerprint,
        "documents": len(task.test.corpus),
        "queries": len(values["dense"][MEASURES[0]]),
        "fusion": asdict(weight) if weight else None,
        "figures": {system.key: figures[system.key] for system in systems},
        "differences": [
            {
                "one": one.key,
                "other": other.key,
                "label": f"{one.label} − {other.label}",
                "figures": figures[f"{one.key}-{other.key}"],
            }
            for one, other in pairs
        ],
        "wins": _wins(values) if "bm25" in values else None,
        "per_query": values,
    }


def _figures(values: dict[str, PerQuery], pairs: list[tuple[str, str]], seed: int) -> dict[str, dict[str, Any]]:
    """Intervals by system, or by `one-other` for a paired difference, and measure."""
    columns = {
        (system, measure): np.array(list(found.values()))
        for system, measured in values.items()
        for measure, found in measured.items()
    }
    for one, other in pairs:
        for measure in MEASURES:
            columns[f"{one}-{other}", measure] = columns[one, measure] - columns[other, measure]
    figures: dict[str, dict[str, Any]] = {}
    for (name, measure), found in zip(columns, intervals(np.stack([*columns.values()], axis=1), seed), strict=True):
        side = {"side": found.side} if name not in values else {}
        figures.setdefault(name, {})[measure] = asdict(found) | side
    return figures


def _comparisons(systems: tuple[System, ...]) -> list[tuple[System, System]]:
    """Against BM25 where there is one, and the model under evaluation against every other model."""
    by_key = {system.key: system for system in systems}
    pairs = [(key, "bm25") for key in ("fused", "dense") if "bm25" in by_key]
    pairs += [("dense", key) for key in by_key if key not in ("dense", "bm25", "fused")]
    return [(by_key[one], by_key[other]) for one, other in pairs]


def _wins(values: dict[str, PerQuery]) -> dict[str, int]:
    """Queries by which of the two lists has the higher first measure."""
    dense, bm25 = values["dense"][MEASURES[0]], values["bm25"][MEASURES[0]]
    difference = [dense[query] - bm25[query] for query in dense]
    return {
        "dense": sum(d > 0 for d in difference),
        "equal": sum(d == 0 for d in difference),
        "bm25": sum(d < 0 for d in difference),
    }
