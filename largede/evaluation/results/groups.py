"""Collections that are reported as the mean of their parts: CQADupStack is twelve forums that count the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from largede.evaluation.measures.metrics import RESAMPLES, Interval, resampled_means
from largede.evaluation.measures.significance import differences_over_collections
from largede.evaluation.results.published import Size, published_beside_group

Parts = Sequence[Mapping[str, Any]]
"""Datasets of results.json."""


def collect_groups(
    datasets: Parts, labels: Mapping[str, str], pairs: Sequence[tuple[str, str]], seed: int
) -> list[dict[str, Any]]:
    """One entry for each group, in the order of its first part."""
    names = dict.fromkeys(dataset["group"] for dataset in datasets if dataset["group"])
    return [_group(name, [d for d in datasets if d["group"] == name], labels, pairs, seed) for name in names]


def _group(
    name: str, parts: Parts, labels: Mapping[str, str], pairs: Sequence[tuple[str, str]], seed: int
) -> dict[str, Any]:
    # Only what every part has can be averaged.
    measures = [m for m in parts[0]["measures"] if all(m in part["measures"] for part in parts)]
    sizes = {part["name"]: Size(part["split"], part["documents"], part["queries"]) for part in parts}
    published, note = published_beside_group(name, sizes)
    return {
        "name": name,
        "parts": [part["name"] for part in parts],
        "documents": sum(part["documents"] for part in parts),
        "queries": sum(part["queries"] for part in parts),
        "measures": measures,
        "figures": _figures(parts, measures, seed),
        "differences": _differences(parts, measures, labels, pairs, seed),
        "published": [asdict(figure) for figure in published if figure.measure in measures],
        "note": note,
    }


def _figures(parts: Parts, measures: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
    """Means of the parts' means; queries are resampled within each part."""
    columns = [(key, measure) for key in parts[0]["figures"] for measure in measures]
    means_M = np.mean([[part["figures"][key][m]["mean"] for key, m in columns] for part in parts], axis=0)
    resampled_RM = np.mean(
        [
            resampled_means(np.stack([_column(part, *at) for at in columns], axis=1), (seed, place), RESAMPLES)
            for place, part in enumerate(parts)
        ],
        axis=0,
    )
    low_M, high_M = np.percentile(resampled_RM, [2.5, 97.5], axis=0)
    found: dict[str, dict[str, Any]] = {}
    for place, (key, measure) in enumerate(columns):
        interval = Interval(float(means_M[place]), float(low_M[place]), float(high_M[place]))
        found.setdefault(key, {})[measure] = asdict(interval)
    return found


def _differences(
    parts: Parts, measures: Sequence[str], labels: Mapping[str, str], pairs: Sequence[tuple[str, str]], seed: int
) -> list[dict[str, Any]]:
    if not pairs:
        return []
    stacked = [
        np.stack([_column(part, one, m) - _column(part, other, m) for one, other in pairs for m in measures], axis=1)
        for part in parts
    ]
    found = iter(differences_over_collections(stacked, seed))
    return [
        {
            "one": one,
            "other": other,
            "label": f"{labels[one]} − {labels[other]}",
            "figures": {m: asdict(d) | {"side": d.side} for m in measures for d in [next(found)]},
        }
        for one, other in pairs
    ]


def _column(part: Mapping[str, Any], system: str, measure: str) -> np.ndarray:
    return np.array(list(part["per_query"][system][measure].values()))
