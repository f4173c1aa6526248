"""All collections together: the overview beside published columns, differences, size against quality."""

from collections.abc import Mapping, Sequence
from typing import Any

from largede.evaluation.report import charts
from largede.evaluation.report.beside import sources
from largede.evaluation.report.elements import (
    counted,
    drawing,
    figure_cell,
    folded,
    head_row,
    interval,
    number,
    p_cell,
    published_number,
    row_head,
    system_head,
    table,
    tone,
)
from largede.evaluation.report.shown import html
from largede.evaluation.results.overview import (
    average_beside_paper,
    overview_rows,
    published_systems,
    published_value,
)
from largede.evaluation.results.published import GTR_PARAMETERS, PAPER

Row = Mapping[str, Any]


def overview(results: Mapping[str, Any]) -> str:
    """The first measure of every system on every collection, where there are several or something is published."""
    rows = overview_rows(results)
    columns = published_systems(rows, PAPER)
    if len(rows) < 2 and not columns:
        return ""
    measure = results["measures"][0]
    bodies = [_overview_body(results, row, columns) for row in rows]
    averages = "".join(_average_row(results, average, columns) for average in results["averages"])
    shown = table(_overview_head(results, columns), [*bodies, f'<tbody class="averages">{averages}</tbody>'], "wide")
    notes = "".join(f"<p>{html(row['note'])}</p>" for row in rows if row["note"])
    said = f"{html(measure)}, unless another measure stands under the name. {sources(rows, PAPER)}"
    return (
        f'<section class="bleed"><h2>All collections</h2><p class="soft">{said}</p>{shown}'
        f'<div class="soft notes">{notes}</div></section>'
    )


def _overview_head(results: Mapping[str, Any], columns: Sequence[str]) -> str:
    systems = results["systems"]
    heads = "".join(system_head(s["key"], s["label"]) for s in systems)
    beside = "".join(f'<th class="published">{html(column)}</th>' for column in columns)
    over = f'<th colspan="{len(systems)}" class="ours">measured here</th>'
    over += f'<th colspan="{len(columns)}" class="published">published</th>' if columns else ""
    first = f"<tr><th></th>{over}</tr>" if columns else ""
    return f"{first}<tr><th></th>{heads}{beside}</tr>"


def _overview_body(results: Mapping[str, Any], row: Row, columns: Sequence[str]) -> str:
    """One row, or a group with its parts, which unfold without a script."""
    parts = row.get("parts")
    if parts is None:
        return f"<tbody>{_overview_row(results, row, columns)}</tbody>"
    datasets = [dataset for dataset in results["datasets"] if dataset["group"] == row["name"]]
    inner = "".join(_overview_row(results, part, columns, "part") for part in datasets)
    return f'<tbody class="group">{_overview_row(results, row, columns)}{inner}</tbody>'


def _overview_row(results: Mapping[str, Any], row: Row, columns: Sequence[str], class_: str = "") -> str:
    measure = row["measures"][0]
    figures = {s["key"]: row["figures"][s["key"]][measure]["mean"] for s in results["systems"]}
    shown = {key: number(f"{row['name']}/{key}/{measure}/mean", value) for key, value in figures.items()}
    best = max(figures.values())
    cells = "".join(f"<td>{f'<b>{shown[k]}</b>' if v == best else shown[k]}</td>" for k, v in figures.items())
    for column in columns:
        cells += f'<td class="published">{published_number(published_value(row, column, measure, PAPER), PAPER)}</td>'
    return f'<tr class="{class_}"><th>{_row_name(results, row)}</th>{cells}</tr>'


def _row_name(results: Mapping[str, Any], row: Row) -> str:
    name, measure = html(row["name"]), row["measures"][0]
    other = "" if measure == results["measures"][0] else f'<span class="range">{html(measure)}</span>'
    if "parts" not in row:
        return f'<span class="fit">{name}</span>{other}'
    unfold = f'<input type="checkbox" aria-label="show the {len(row["parts"])} parts">'
    said = f'<span class="range">mean of {len(row["parts"])}</span>'
    return f"<label>{unfold}{name}</label>{said}{other}"


def _average_row(results: Mapping[str, Any], average: Mapping[str, Any], columns: Sequence[str]) -> str:
    count = len(average["rows"])
    at = f"average of {count}"
    cells = "".join(
        figure_cell(f"{at}/{system['key']}/{average['measure']}/mean", average["systems"][system["key"]])
        for system in results["systems"]
    )
    for column in columns:
        cells += f'<td class="published">{published_number(average["published"].get(column), PAPER)}</td>'
    without = ", ".join(html(name) for name in average["left_out"])
    said = f'<span class="range">without {without}</span>' if without else ""
    return f"<tr><th>average of {count}{said}</th>{cells}</tr>"


def differences(results: Mapping[str, Any]) -> str:
    """For each pair of systems: the difference on every collection as a picture and as a table."""
    rows = overview_rows(results)
    if len(rows) < 2 or not rows[0]["differences"]:
        return ""
    pairs = [(entry["one"], entry["other"], entry["label"]) for entry in rows[0]["differences"]]
    tables = "".join(folded(html(label), _difference_table(rows, one, other)) for one, other, label in pairs)
    pictures = [_difference_picture(rows, one, other, label) for one, other, label in pairs]
    first, others = (f'<div class="pictures">{"".join(some)}</div>' for some in (pictures[:2], pictures[2:]))
    more = folded(f"{counted(len(pictures) - 2, 'more picture')}", others) if len(pictures) > 2 else ""
    return (
        "<section><h2>Differences</h2><p class='soft'>In the first measure of each collection, sorted; thin lines are "
        "95 % bootstrap intervals of the paired difference over queries.</p>"
        f"{first}{more}"
        "<p class='soft after'>The same with p values: of the paired t-test, of the paired bootstrap, and of the "
        f"t-test corrected over the {counted(len(rows), 'collection')} of each table (Holm).</p>{tables}</section>"
    )


def _difference_picture(rows: Sequence[Row], one: str, other: str, label: str) -> str:
    found = [
        charts.Row(tone(one), row["name"], **{end: figure[end] for end in ("mean", "low", "high")})
        for row in rows
        for figure in [_difference_of(row, one, other)]
    ]
    found.sort(key=lambda row: -row.mean)
    return drawing(label, charts.differences(found, tone(other), label))


def _difference_table(rows: Sequence[Row], one: str, other: str) -> str:
    body = []
    for row in rows:
        measure, figure = row["measures"][0], _difference_of(row, one, other)
        at = f"{row['name']}/{one}-{other}/{measure}"
        body.append(
            f"<tr>{row_head(row['name'], measure)}"
            f"<td>{number(f'{at}/mean', figure['mean'], signed=True)}</td>"
            f"<td>{interval(at, figure, signed=True)}</td>"
            + "".join(p_cell(f"{at}/{kind}", figure[kind]) for kind in ("p_t", "p_bootstrap", "p_holm"))
            + "</tr>"
        )
    heads = ("", "difference", "95 % interval", "p (t-test)", "p (bootstrap)", "p (t-test, Holm)")
    return table(head_row(heads), body)


def _difference_of(row: Row, one: str, other: str) -> Mapping[str, Any]:
    found = next(entry for entry in row["differences"] if (entry["one"], entry["other"]) == (one, other))
    figure: Mapping[str, Any] = found["figures"][row["measures"][0]]
    return figure


def size_picture(results: Mapping[str, Any]) -> str:
    """Parameters against the average, with the published sizes where the paper has such collections too.

    Nothing where all models are of one size.
    """
    systems = [s for s in results["systems"] if s["parameters"] and s["key"] != "fused"]
    average = average_beside_paper(results)
    if average is None or not systems:
        return ""
    ours = [charts.Sized(tone(s["key"]), s["label"], s["parameters"], average["systems"][s["key"]]) for s in systems]
    published = [
        charts.Sized("published", f"{name}, published", size, average["published"][name])
        for name, size in GTR_PARAMETERS.items()
        if name in average["published"]
    ]
    if len({model.parameters for model in (*ours, *published)}) < 2:
        return ""
    rows = average["rows"]
    over = (
        f"Average {html(average['measure'])} of {len(rows)} collections"
        if len(rows) > 1
        else html(f"{average['measure']} of {rows[0]}")
    )
    note = f"{over}."
    picture = charts.size_against_quality(ours, published, "size against quality")
    return (
        '<section><h2>Size</h2><div class="pictures wide-pictures">'
        f"{drawing('Parameters against quality', picture, note)}</div></section>"
    )
