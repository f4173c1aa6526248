"""One collection: its measures with intervals, the paired differences, and its pictures."""

from collections.abc import Mapping
from typing import Any

from largede.evaluation.report import charts
from largede.evaluation.report.elements import (
    SIDES,
    drawing,
    folded,
    interval,
    number,
    p_value,
    row_head,
    system_head,
    table,
    tone,
)
from largede.evaluation.report.shown import html
from largede.evaluation.results.overview import labels_of, lexical_of

Dataset = Mapping[str, Any]

_FOLDED_FROM = 3
"""So many collections, and each is folded away under its name."""


def collections(results: Mapping[str, Any]) -> str:
    sections = [_collection(dataset, results) for dataset in results["datasets"]]
    if len(sections) < _FOLDED_FROM:
        return "".join(
            f"<section><h2>{html(dataset['name'])}</h2>{section}</section>"
            for dataset, section in zip(results["datasets"], sections, strict=True)
        )
    folds = "".join(
        folded(html(dataset["name"]), section) for dataset, section in zip(results["datasets"], sections, strict=True)
    )
    return f"<section><h2>Each collection</h2>{folds}</section>"


def _collection(dataset: Dataset, results: Mapping[str, Any]) -> str:
    rows = [_system_row(dataset, system) for system in results["systems"]]
    rows += [_difference_row(dataset, entry, place == 0) for place, entry in enumerate(dataset["differences"])]
    heads = "".join(f"<th>{html(measure)}</th>" for measure in dataset["measures"])
    note = f'<p class="soft">{html(dataset["note"])}</p>' if dataset["note"] else ""
    return (
        f'<p class="soft"><span data-count="documents">{dataset["documents"]:,}</span> documents, '
        f'<span data-count="queries">{counted_queries(dataset)}</span> of the split '
        f"<code>{html(dataset['split'])}</code>. Small print: 95 % bootstrap intervals over queries; p of the paired "
        f"t-test.</p>{note}{table(f'<tr><th></th>{heads}</tr>', rows)}"
        f'<div class="pictures">{_pictures(dataset, results)}</div>'
    )


def counted_queries(dataset: Dataset) -> str:
    return f"{dataset['queries']:,} {'query' if dataset['queries'] == 1 else 'queries'}"


def _system_row(dataset: Dataset, system: Mapping[str, Any]) -> str:
    key, figures = system["key"], dataset["figures"][system["key"]]
    cells = []
    for measure in dataset["measures"]:
        found, at = figures[measure], f"{dataset['name']}/{key}/{measure}"
        best = max(other[measure]["mean"] for other in dataset["figures"].values())
        value = number(f"{at}/mean", found["mean"])
        value = f"<b>{value}</b>" if found["mean"] == best else value
        cells.append(f'<td>{value}<span class="range">{interval(at, found)}</span></td>')
    return f"<tr>{system_head(key, system['label'])}{''.join(cells)}</tr>"


def _difference_row(dataset: Dataset, entry: Mapping[str, Any], is_first: bool) -> str:
    cells = []
    for measure in dataset["measures"]:
        found = entry["figures"][measure]
        at = f"{dataset['name']}/{entry['one']}-{entry['other']}/{measure}"
        cells.append(
            f'<td>{number(f"{at}/mean", found["mean"], signed=True)}<span class="range">'
            f'{interval(at, found, signed=True)}</span><span class="verdict {found["side"]}">'
            f"{SIDES[found['side']]}</span>"
            f'<span class="range">p {p_value(f"{at}/p_t", found["p_t"])}</span></td>'
        )
    opening = '<tr class="first-difference">' if is_first else "<tr>"
    return f"{opening}{row_head(entry['label'])}{''.join(cells)}</tr>"


def _pictures(dataset: Dataset, results: Mapping[str, Any]) -> str:
    measure = dataset["measures"][0]
    rows = [
        charts.Row(tone(system["key"]), system["label"], **dataset["figures"][system["key"]][measure])
        for system in results["systems"]
    ]
    shown = [drawing(f"{measure} with 95 % intervals", charts.intervals(rows, measure))]
    if dataset["wins"]:
        shown += _where_each_wins(dataset, measure)
    if dataset["lengths"]:
        shown.append(_lengths(dataset, results))
    if dataset["fusion"]:
        shown.append(_fusion(dataset["fusion"]))
    return "".join(shown)


def _fusion(fusion: Mapping[str, Any]) -> str:
    picture = charts.weight_curve(fusion["curve"], fusion["weight"], "fusion weight") if fusion["curve"] else ""
    note = f"Weight of the dense list: {fusion['weight']:.2f} ({html(fusion['chosen_on'])})."
    return drawing("How the two lists were fused", picture, note, "square")


def _where_each_wins(dataset: Dataset, measure: str) -> list[str]:
    dense, bm25 = (dataset["per_query"][key][measure] for key in ("dense", lexical_of(dataset["per_query"])))
    pairs = [(dense[query], bm25[query]) for query in dense]
    bars = charts.difference_bars([d - b for d, b in pairs], "difference by query")
    grid = charts.agreement([d for d, _ in pairs], [b for _, b in pairs], "dense against BM25 by query")
    said = _score(dataset) + f"{html(measure)} of dense minus BM25, sorted."
    return [
        drawing("Where each wins, query by query", bars, said),
        drawing(
            "How far they agree", grid, "The larger a disc, the more queries; above the line dense is better.", "square"
        ),
    ]


def _score(dataset: Dataset) -> str:
    """How many queries each wins, as a bar and in words."""
    labels = {"dense": "dense better", "equal": "equal", "bm25": "BM25 better"}
    wins, at = dataset["wins"], f"{dataset['name']}/wins"
    bar = "".join(f'<span class="{key}" style="flex:{wins[key]}"></span>' for key in labels)
    words = "".join(
        f'<span class="{key}"><span class="swatch"></span><b data-figure="{html(at)}/{key}">{wins[key]:,}</b> '
        f"{label}</span>"
        for key, label in labels.items()
    )
    return f'<span class="score">{bar}</span><span class="legend">{words}</span>'


def _lengths(dataset: Dataset, results: Mapping[str, Any]) -> str:
    found, labels = dataset["lengths"], labels_of(results)
    spreads = [("equal", name, found[name]) for name in ("corpus", "relevant") if name in found]
    spreads += [(tone(key), labels[key], spread) for key, spread in found["retrieved"].items() if key in labels]
    rows = [charts.Ridge(key, label, spread["shares"], spread["median"]) for key, label, spread in spreads]
    title = f"Lengths of the first {found['depth']} of each list"
    picture = charts.ridges(rows, found["edges"], found["unit"], title)
    note = f"In {html(found['unit'])}, title and text; beside all passages of the corpus and the relevant ones."
    return drawing(title, picture, note)
