"""Example searches: some that nobody picked, and those that dense lost by most."""

from collections.abc import Mapping, Sequence
from typing import Any

from largede.evaluation.report.elements import counted, number, p_value, row_head, table, tone
from largede.evaluation.report.examples import LOST, Example, Hit
from largede.evaluation.report.shown import html
from largede.evaluation.results.overview import labels_of, lexical_of, overview_rows


def losses(results: Mapping[str, Any], examples: Sequence[Example]) -> str:
    """Where dense loses to BM25: the collections, and the queries with the largest difference."""
    rows = [
        (row, row["measures"][0], entry["figures"][row["measures"][0]])
        for row in overview_rows(results)
        for entry in row["differences"]
        if (entry["one"], entry["other"]) == ("dense", lexical_of(labels_of(results)))
    ]
    if not rows:
        return ""
    lost = sorted((one for one in rows if one[2]["mean"] < 0), key=lambda one: one[2]["mean"])
    shown = [example for example in examples if example.why == LOST]
    worst = "".join(_example(example, labels_of(results), place < 1) for place, example in enumerate(shown))
    if worst:
        worst = (
            f"<p class='soft after'>The {counted(len(shown), 'query').replace('querys', 'queries')} it loses by most: "
            f"the worst of each collection, then the second worst.</p>{worst}"
        )
    across = _lost_collections(lost, len(rows)) if len(rows) > 1 else ""
    if not across and not worst:
        return ""
    return f"<section><h2>Where dense loses to BM25</h2>{across}{worst}</section>"


def _lost_collections(lost: Sequence[tuple[Any, str, Any]], of: int) -> str:
    if not lost:
        return f"<p class='soft'>On average on none of {counted(of, 'collection')}.</p>"
    body = [
        f"<tr>{row_head(row['name'], measure)}"
        f"<td>{number(_at(row, measure, 'mean'), figure['mean'], signed=True)}</td>"
        f"<td>{p_value(_at(row, measure, 'p_holm'), figure['p_holm'])}</td></tr>"
        for row, measure, figure in lost
    ]
    head = "<tr><th></th><th>dense − BM25</th><th>p (t-test, Holm)</th></tr>"
    return f"<p class='soft'>On {len(lost)} of {counted(of, 'collection')}.</p>{table(head, body)}"


def _at(row: Mapping[str, Any], measure: str, what: str) -> str:
    return f"{row['name']}/dense-bm25/{measure}/{what}"


def drawn(results: Mapping[str, Any], examples: Sequence[Example]) -> str:
    """The searches that were drawn by seed."""
    shown = [example for example in examples if example.why != LOST]
    if not shown:
        return ""
    labels = labels_of(results)
    folds = "".join(_example(example, labels, place < 2) for place, example in enumerate(shown))
    return (
        f"<section><h2>{counted(len(shown), 'example search').replace('searchs', 'searches')}</h2>"
        '<p class="soft">Drawn by seed from wins, losses and ties alike. A tick marks a passage judged relevant.</p>'
        f"{folds}</section>"
    )


def _example(example: Example, labels: Mapping[str, str], is_open: bool) -> str:
    values = " · ".join(f"{html(labels.get(key, key))} {value:.2f}" for key, value in example.values.items())
    lists = "".join(_list(key, labels.get(key, key), hits) for key, hits in example.lists.items())
    relevant = f", {counted(example.relevant, 'relevant passage')}" if example.relevant else ""
    return (
        f'<details class="example"{" open" if is_open else ""}><summary><span class="query">{html(example.query)}'
        f'</span><span class="tag {example.winner}">{html(example.measure)}: {values}</span></summary>'
        f'<div class="lists">{lists}</div>'
        f'<p class="soft" style="padding:0 20px">{html(example.dataset)}{relevant}</p></details>'
    )


def _list(key: str, label: str, hits: Sequence[Hit]) -> str:
    found = "".join(map(_hit, hits)) or "nothing found"
    return f'<div class="{tone(key)}"><h3>{html(label)}</h3><ol>{found}</ol></div>'


def _hit(hit: Hit) -> str:
    head = f"<b>{html(hit.title)}</b>" if hit.title else ""
    return f"<li{' class=relevant' if hit.is_relevant else ''}>{head}{html(hit.text)}</li>"
