"""The figures of an evaluation as one JSON value: what results.json holds and the report draws.

    title, seed, measures           the first measure is that of the overview
    systems                         key, label, parameters (of the model, where there is one)
    datasets                        one for each collection:
        name, group, split, fingerprint, documents, queries, measures, fusion
        figures                     system -> measure -> mean, low, high (95 % bootstrap interval over queries)
        differences                 one, other, label, figures:
                                    measure -> mean, low, high, side, p_bootstrap, p_t, p_holm
        wins                        queries by which of dense and BM25 is better in the first measure
        lengths                     of passages: of the corpus, relevant, retrieved by each system (lengths.py)
        published, note             figures that may stand beside these, or why none may
        per_query                   system -> measure -> query -> value
    groups                          the same for collections that are reported as the mean of their parts
    averages                        over rows of the overview: measure, rows, systems, published
    indexes, about, settings        tables of index comparisons, and what was run

p_holm is p_t corrected over the rows of the overview (Holm), for each pair of systems and each measure; parts of a
group are corrected among themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from largede.evaluation.measures.metrics import MEASURES, PerQuery, intervals
from largede.evaluation.measures.significance import differences, holm
from largede.evaluation.results.groups import collect_groups
from largede.evaluation.results.overview import collect_averages, lexical_of, overview_measure, overview_rows
from largede.evaluation.results.published import Size, published_beside
from largede.evaluation.weight import FusionWeight

Pair = tuple[str, str]
"""The keys of two systems: the first minus the second."""


@dataclass(frozen=True)
class System:
    """One way of searching: `key` names its files and figures, `label` is for people; `parameters` of its model."""

    key: str
    label: str
    parameters: int | None = None


@dataclass(frozen=True)
class Measured:
    """One collection with the measures of every query by system, all over the same queries.

    `documents` is the size of its corpus; the first of `measures` stands in the overview; collections of one `group`
    are reported as their mean as well; `lengths` are of `retrieved_lengths`.
    """

    name: str
    split: str
    fingerprint: str
    documents: int
    values: Mapping[str, PerQuery]
    measures: tuple[str, ...] = MEASURES
    group: str | None = None
    weight: FusionWeight | None = None
    lengths: Mapping[str, Any] | None = None

    @property
    def queries(self) -> int:
        return len(next(iter(self.values.values()))[self.measures[0]])


def collect_results(
    title: str,
    systems: Sequence[System],
    measured: Sequence[Measured],
    seed: int = 0,
    indexes: Sequence[Mapping[str, Any]] = (),
    pairs: Sequence[Pair] | None = None,
) -> dict[str, Any]:
    """All figures. `indexes` are rows of an index comparison; `pairs` None compares what `compared_pairs` says."""
    pairs = compared_pairs([system.key for system in systems]) if pairs is None else pairs
    labels = {system.key: system.label for system in systems}
    datasets = [_dataset(one, systems, pairs, labels, seed) for one in measured]
    results: dict[str, Any] = {
        "title": title,
        "seed": seed,
        "measures": list(overview_measure(one.measures for one in measured)),
        "systems": [asdict(system) for system in systems],
        "datasets": datasets,
        "groups": collect_groups(datasets, labels, pairs, seed),
        "indexes": [dict(row) for row in indexes],
    }
    _correct(results)
    results["averages"] = collect_averages(results)
    return results


def compared_pairs(keys: Sequence[str]) -> list[Pair]:
    """Everything made of lists and other kinds of BM25 against BM25, fusion against its dense half, the model against
    every other model."""
    lexical = lexical_of(keys)
    derived = [key for key in keys if key in ("fused", "rrf", "dense") or key.startswith("reranked-")]
    others = [key for key in keys if key not in derived and not key.startswith("bm25")]
    kinds = [key for key in keys if key.startswith("bm25") and key != lexical]
    pairs = [(one, lexical) for one in [*sorted(derived, key=_order), *kinds]] if lexical else []
    pairs += [(one, "dense") for one in keys if one == "fused" or one.startswith("reranked-")]
    return pairs + [("dense", other) for other in others]


def _order(key: str) -> int:
    return {"fused": 0, "dense": 1, "rrf": 2}.get(key, 3)


def _dataset(
    one: Measured, systems: Sequence[System], pairs: Sequence[Pair], labels: Mapping[str, str], seed: int
) -> dict[str, Any]:
    published, note = published_beside(one.name, Size(one.split, one.documents, one.queries))
    return {
        "name": one.name,
        "group": one.group,
        "split": one.split,
        "fingerprint": one.fingerprint,
        "documents": one.documents,
        "queries": one.queries,
        "measures": list(one.measures),
        "fusion": asdict(one.weight) if one.weight else None,
        "figures": _figures(one, [system.key for system in systems], seed),
        "differences": _differences(one, pairs, labels, seed),
        "wins": _wins(one),
        "lengths": one.lengths,
        "published": [asdict(figure) for figure in published if figure.measure in one.measures],
        "note": note,
        "per_query": {system.key: one.values[system.key] for system in systems},
    }


def _figures(one: Measured, keys: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
    """Intervals by system and measure."""
    columns = [list(one.values[key][measure].values()) for key in keys for measure in one.measures]
    found = iter(intervals(np.array(columns).T, seed))
    return {key: {measure: asdict(next(found)) for measure in one.measures} for key in keys}


def _differences(one: Measured, pairs: Sequence[Pair], labels: Mapping[str, str], seed: int) -> list[dict[str, Any]]:
    """Paired differences, all over the same resamples of the queries."""
    if not pairs:
        return []
    columns = {key: np.array([list(one.values[key][m].values()) for m in one.measures]) for key in one.values}
    stacked = np.concatenate([columns[first] - columns[second] for first, second in pairs])
    found = iter(differences(stacked.T, seed))
    return [
        {
            "one": first,
            "other": second,
            "label": f"{labels[first]} − {labels[second]}",
            "figures": {m: asdict(d) | {"side": d.side} for m in one.measures for d in [next(found)]},
        }
        for first, second in pairs
    ]


def _correct(results: dict[str, Any]) -> None:
    """Write p_holm into every difference: over the rows of the overview, and over the parts of each group."""
    families = [overview_rows(results)]
    for group in results["groups"]:
        families.append([dataset for dataset in results["datasets"] if dataset["group"] == group["name"]])
    for family in families:
        for found in _of_one_kind(family):
            for figure, corrected in zip(found, holm([figure["p_t"] for figure in found]), strict=True):
                figure["p_holm"] = corrected


def _of_one_kind(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Differences of one pair and one measure; the first measure of each row, whatever it is, makes one kind."""
    kinds: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        for difference in row["differences"]:
            for measure, figure in difference["figures"].items():
                kind = "first" if measure == row["measures"][0] else measure
                kinds.setdefault((difference["one"], difference["other"], kind), []).append(figure)
    yield from kinds.values()


def _wins(one: Measured) -> dict[str, int] | None:
    """Queries by which of the two lists has the higher first measure; None where there are no two."""
    lexical = lexical_of(one.values)
    if lexical is None or "dense" not in one.values:
        return None
    dense, bm25 = one.values["dense"][one.measures[0]], one.values[lexical][one.measures[0]]
    difference = [dense[query] - bm25[query] for query in dense]
    return {
        "dense": sum(d > 0 for d in difference),
        "equal": sum(d == 0 for d in difference),
        "bm25": sum(d < 0 for d in difference),
    }
