"""Tables beside published figures: the paper's other measures, Anserini, MTEB, the five layouts."""

from collections.abc import Mapping, Sequence
from typing import Any

from largede.evaluation.report.elements import (
    figure_cell,
    folded,
    number,
    published_number,
    row_head,
    system_head,
    table,
)
from largede.evaluation.report.shown import html
from largede.evaluation.results.overview import (
    labels_of,
    published_sources,
    published_systems,
    published_value,
    rows_with_parts,
    twin_of,
)
from largede.evaluation.results.published import ANSERINI, LAYOUTS, MTEB, PAPER

Row = Mapping[str, Any]

_FAMILIES = {
    PAPER: "Beside the paper",
    ANSERINI: "BM25 beside Anserini",
    MTEB: "Beside MTEB",
    LAYOUTS: "Beside the five layouts",
}


def beside_published(results: Mapping[str, Any]) -> str:
    """A table for each source and measure that the overview does not show already."""
    shown = []
    rows = rows_with_parts(results)
    for family, title in _FAMILIES.items():
        if not _ours(results, family):
            continue
        for measure in results["measures"]:
            if family == PAPER and measure == results["measures"][0]:
                continue
            found = [row for row in rows if measure in row["measures"] and published_systems([row], family, measure)]
            if found:
                head = f"{html(title)}: {html(measure)}"
                shown.append(folded(head, _beside(results, found, family, measure), is_open=family == ANSERINI))
    return f"<section><h2>Beside published figures</h2>{' '.join(shown)}</section>" if shown else ""


def _beside(results: Mapping[str, Any], rows: Sequence[Row], family: str, measure: str) -> str:
    """Ours, then the published columns; with BM25 of the same kind on both sides, the difference as well."""
    columns = published_systems(rows, family, measure)
    keys = _ours(results, family)
    labels = labels_of(results)
    twins = {column: twin for column in columns for twin in [twin_of(results, column)] if twin in keys}
    heads = "".join(system_head(key, labels[key]) for key in keys)
    for column in columns:
        heads += f'<th class="published">{html(column)}</th>' + ("<th>difference</th>" if column in twins else "")
    body = []
    for row in rows:
        cells = "".join(
            figure_cell(f"{row['name']}/{key}/{measure}/mean", row["figures"][key][measure]["mean"]) for key in keys
        )
        for column in columns:
            value = published_value(row, column, measure, family)
            cells += f'<td class="published">{published_number(value, family)}</td>'
            if column in twins:
                cells += f"<td>{_against(row, twins[column], column, measure, value)}</td>"
        body.append(f"<tr>{row_head(row['name'])}{cells}</tr>")
    return table(f"<tr><th></th>{heads}</tr>", body, "wide") + f"<p class='soft'>{sources(rows, family, measure)}</p>"


def _ours(results: Mapping[str, Any], family: str) -> list[str]:
    """Our lists that may stand beside a source's: Anserini's are of BM25, beside anything else they say nothing."""
    return [s["key"] for s in results["systems"] if family != ANSERINI or s["key"].startswith("bm25")]


def _against(row: Row, key: str, column: str, measure: str, value: float | None) -> str:
    if value is None:
        return "–"
    at = f"{row['name']}/{key}-{column}/{measure}/mean"
    return number(at, row["figures"][key][measure]["mean"] - value, signed=True)


def sources(rows: Sequence[Row], family: str, measure: str | None = None) -> str:
    """Where the figures of one measure are from, or (None) those of each row's first."""
    found = published_sources(rows, family, measure)
    return f"Published figures: {html(found)}." if found else ""
