"""Which rows an overview has, and their averages."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from largede.evaluation.results.published import ANSERINI_BM25, NOT_ZERO_SHOT, PAPER, published_order


def overview_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries of results.json, one for each collection; a group stands where its first part would."""
    groups = {group["name"]: group for group in results["groups"]}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for dataset in results["datasets"]:
        if dataset["group"]:
            rows["group", dataset["group"]] = groups[dataset["group"]]
        else:
            rows["dataset", dataset["name"]] = dataset
    return list(rows.values())


def rows_with_parts(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same, and after each group its parts."""
    rows = []
    for row in overview_rows(results):
        rows += [row, *(d for d in results["datasets"] if "parts" in row and d["group"] == row["name"])]
    return rows


def labels_of(results: Mapping[str, Any]) -> dict[str, str]:
    """Labels of systems by key, not escaped."""
    return {system["key"]: system["label"] for system in results["systems"]}


def lexical_of(keys: Iterable[str]) -> str | None:
    """Of the keys of systems in their order BM25's first kind, which all is compared with, fused and re-ranked."""
    return next((key for key in keys if key.startswith("bm25")), None)


def overview_measure(measures: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """All measures there are, that first which comes first in most collections."""
    kept = list(measures)
    first = Counter(found[0] for found in kept).most_common(1)[0][0]
    return tuple(dict.fromkeys([first, *(measure for found in kept for measure in found)]))


def published_value(row: Mapping[str, Any], system: str, measure: str, family: str) -> float | None:
    """The figure that one published system has for a row, if there is one."""
    for figure in row["published"]:
        if (figure["system"], figure["measure"], figure["family"]) == (system, measure, family):
            return float(figure["value"])
    return None


def published_systems(rows: Sequence[Mapping[str, Any]], family: str, measure: str | None = None) -> list[str]:
    """The published columns that some row has: of one measure, or (None) of each row's first; in the papers' order."""
    found = {
        figure["system"]
        for row in rows
        for figure in row["published"]
        if figure["family"] == family and figure["measure"] == (measure or row["measures"][0])
    }
    order = published_order(family)
    # A results.json of another version of largede may name systems that are not shipped any more.
    return [system for system in order if system in found] + sorted(found.difference(order))


def published_sources(rows: Sequence[Mapping[str, Any]], family: str, measure: str | None = None) -> str:
    """Where the figures of those columns are from."""
    found = {
        figure["source"]
        for row in rows
        for figure in row["published"]
        if figure["family"] == family and figure["measure"] == (measure or row["measures"][0])
    }
    return "; ".join(sorted(found))


def twin_of(results: Mapping[str, Any], column: str) -> str:
    """The system of ours that is made just as an Anserini column was, or nothing."""
    twin = {"Anserini flat": "bm25", "Anserini multifield": "bm25-multifield"}.get(column, "")
    parameters = (results["settings"].get("bm25") or {}).get(twin, ANSERINI_BM25)
    return twin if parameters == ANSERINI_BM25 and not results["settings"].get("bm25_tuned") else ""


def collect_averages(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Means of the overview's first measure over its rows, MS MARCO left out as in the papers.

    Two at most: over all such rows for our systems alone, and over those rows for which every published column has a
    figure as well, so that no average is over other collections than the one beside it.
    """
    rows, both, columns = _rows_to_average(results)
    found = [_average(results, both, columns)] if len(both) > 1 else []
    if len(rows) > 1 and len(rows) != len(both):
        found.append(_average(results, rows, []))
    return found


def average_beside_paper(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """The average over the rows that the paper has as well, be it one row; of all rows where the paper has none."""
    rows, both, columns = _rows_to_average(results)
    if both:
        return _average(results, both, columns)
    return _average(results, rows, []) if rows else None


def _rows_to_average(results: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Rows of the overview's first measure, those of them that every published column has, and these columns."""
    measure = results["measures"][0]
    measured = [row for row in overview_rows(results) if row["measures"][0] == measure]
    rows = [row for row in measured if row["name"] != NOT_ZERO_SHOT]
    columns = published_systems(rows, PAPER, measure)
    both = [
        row for row in rows if columns and all(published_value(row, c, measure, PAPER) is not None for c in columns)
    ]
    return rows, both, columns


def _average(results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    measure = results["measures"][0]

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(rows)

    return {
        "measure": measure,
        "rows": [row["name"] for row in rows],
        "left_out": [row["name"] for row in overview_rows(results) if row not in rows],
        "systems": {
            s["key"]: mean(row["figures"][s["key"]][measure]["mean"] for row in rows) for s in results["systems"]
        },
        "published": {c: mean(published_value(row, c, measure, PAPER) or 0.0 for row in rows) for c in columns},
    }
