"""The page people look at: one HTML file that needs nothing else, from the figures of results.json.

Every measured number is inside an element with `data-figure`, so that it can be found again in the page.
"""

from html import escape
from typing import Any

from largede.evaluation import charts
from largede.evaluation.curves import Curves
from largede.evaluation.examples import Example, Hit
from largede.evaluation.style import STYLE

_WORDS = {"dense": "dense", "bm25": "BM25", "fused": "fused"}
_SIDES = {"above": "above zero", "below": "below zero", "across": "across zero"}
_SNIPPET = 220


def render_report(results: dict[str, Any], examples: list[Example], curves: Curves) -> str:
    """The whole page. All text of corpora, queries, settings and commands is escaped."""
    title = escape(results["title"])
    sections = [
        _header(results),
        _overview(results),
        *(_dataset(dataset, results) for dataset in results["datasets"]),
        _training(curves),
        _examples(examples),
        _about(results),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def _header(results: dict[str, Any]) -> str:
    dataset, measure = results["datasets"][0], results["measures"][0]
    cards = "".join(_card(dataset, system, measure) for system in results["systems"])
    return (
        f'<p class="eyebrow">largede · retrieval report</p><h1>{escape(results["title"])}</h1>'
        f'<p class="lead">{_finding(dataset, measure)}</p><div class="cards">{cards}</div>'
    )


def _overview(results: dict[str, Any]) -> str:
    """The first measure of every system on every collection, where there are several."""
    datasets, systems, measure = results["datasets"], results["systems"], results["measures"][0]
    if len(datasets) < 2:
        return ""
    heads = "".join(f'<th><span class="swatch {_tone(s["key"])}"></span>{escape(s["label"])}</th>' for s in systems)
    rows = []
    for dataset in datasets:
        figures = {system["key"]: dataset["figures"][system["key"]][measure]["mean"] for system in systems}
        shown = {key: _number(f"{dataset['name']}/{key}/{measure}/mean", value) for key, value in figures.items()}
        best = max(figures.values())
        cells = "".join(f"<td>{f'<b>{shown[k]}</b>' if v == best else shown[k]}</td>" for k, v in figures.items())
        rows.append(f"<tr><th>{escape(dataset['name'])}</th>{cells}</tr>")
    head = f"<thead><tr><th>{measure}</th>{heads}</tr></thead>"
    table = f'<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'
    return f"<section><h2>All collections</h2>{table}</section>"


def _finding(dataset: dict[str, Any], measure: str) -> str:
    """The first collection in one or two sentences that follow from its figures."""
    name, figures = escape(dataset["name"]), dataset["figures"]
    scale = f"{dataset['queries']:,} queries over {dataset['documents']:,} documents of {name}"
    key = "fused" if "fused" in figures else "dense"
    difference = next((d for d in dataset["differences"] if d["one"] == key), None)
    reached = f"On {scale}, the {key} ranking reaches {measure} {_figure(dataset, f'{key}/{measure}', figures[key])}."
    if difference is None:
        return reached
    found, other = difference["figures"][measure], escape(_word(difference["other"]))
    amount = _number(f"{dataset['name']}/{key}-{difference['other']}/{measure}/mean", found["mean"], signed=True)
    against = f"That is {amount} against {other}, the 95 % interval of the paired difference {_where(found)}."
    return f"{reached} {against} {_one_sided(dataset['fusion'])}"


def _one_sided(fusion: dict[str, Any] | None) -> str:
    """A word where the chosen weight makes fusion empty."""
    words = {0.0: "The chosen weight leaves the dense list out.", 1.0: "The chosen weight leaves BM25 out."}
    return words.get(fusion["weight"], "") if fusion else ""


def _where(found: dict[str, Any]) -> str:
    return {"above": "lying wholly above zero", "below": "lying wholly below zero", "across": "reaching across zero"}[
        found["side"]
    ]


def _card(dataset: dict[str, Any], system: dict[str, str], measure: str) -> str:
    found = dataset["figures"][system["key"]][measure]
    at = f"{dataset['name']}/{system['key']}/{measure}"
    return (
        f'<div class="card {_tone(system["key"])}"><span class="name">{escape(system["label"])}</span>'
        f'<div class="big">{_number(f"{at}/mean", found["mean"])}</div>'
        f'<span class="soft">{measure} · {_range(at, found)}</span></div>'
    )


def _dataset(dataset: dict[str, Any], results: dict[str, Any]) -> str:
    name, split = escape(dataset["name"]), escape(dataset["split"])
    rows = "".join(_system_row(dataset, system, results["measures"]) for system in results["systems"])
    differences = "".join(
        _difference_row(dataset, difference, results["measures"], place == 0)
        for place, difference in enumerate(dataset["differences"])
    )
    heads = "".join(f"<th>{measure}</th>" for measure in results["measures"])
    return (
        f'<section><h2>{name}</h2><p class="soft">{dataset["documents"]:,} documents, {dataset["queries"]:,} queries '
        f"of the split <code>{split}</code>. Small print: 95 % bootstrap intervals over queries.</p>"
        f'<div class="scroll"><table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}{differences}</tbody></table>'
        f'</div><div class="pictures">{_pictures(dataset, results)}</div></section>'
    )


def _system_row(dataset: dict[str, Any], system: dict[str, str], measures: list[str]) -> str:
    key, figures = system["key"], dataset["figures"][system["key"]]
    best = {m: max(found[m]["mean"] for found in dataset["figures"].values()) for m in measures}
    cells = []
    for measure in measures:
        found, at = figures[measure], f"{dataset['name']}/{key}/{measure}"
        value = _number(f"{at}/mean", found["mean"])
        value = f"<b>{value}</b>" if found["mean"] == best[measure] else value
        cells.append(f'<td>{value}<span class="range">{_range(at, found)}</span></td>')
    head = f'<th class="{_tone(key)}"><span class="swatch"></span>{escape(system["label"])}</th>'
    return f"<tr>{head}{''.join(cells)}</tr>"


def _difference_row(dataset: dict[str, Any], difference: dict[str, Any], measures: list[str], is_first: bool) -> str:
    cells = []
    for measure in measures:
        found = difference["figures"][measure]
        at = f"{dataset['name']}/{difference['one']}-{difference['other']}/{measure}"
        cells.append(
            f'<td>{_number(f"{at}/mean", found["mean"], signed=True)}<span class="range">'
            f'{_range(at, found, signed=True)}</span><span class="verdict {found["side"]}">'
            f"{_SIDES[found['side']]}</span></td>"
        )
    opening = '<tr class="first-difference">' if is_first else "<tr>"
    return f"{opening}<th>{escape(difference['label'])}</th>{''.join(cells)}</tr>"


def _pictures(dataset: dict[str, Any], results: dict[str, Any]) -> str:
    measure = results["measures"][0]
    rows = [
        charts.Row(_tone(system["key"]), system["label"], **dataset["figures"][system["key"]][measure])
        for system in results["systems"]
    ]
    shown = [_drawing(f"{measure} with 95 % intervals", charts.intervals(rows, measure))]
    if dataset["wins"]:
        shown += _where_each_wins(dataset, measure)
    fusion = dataset["fusion"]
    if fusion:
        drawing = charts.weight_curve(fusion["curve"], fusion["weight"], "fusion weight") if fusion["curve"] else ""
        note = f"Weight of the dense list: {fusion['weight']:.2f} ({escape(fusion['chosen_on'])})."
        shown.append(_drawing("How the two lists were fused", drawing, note, "square"))
    return "".join(shown)


def _where_each_wins(dataset: dict[str, Any], measure: str) -> list[str]:
    dense, bm25 = dataset["per_query"]["dense"][measure], dataset["per_query"]["bm25"][measure]
    pairs = [(dense[query], bm25[query]) for query in dense]
    bars = charts.difference_bars([d - b for d, b in pairs], "difference by query")
    grid = charts.agreement([d for d, _ in pairs], [b for _, b in pairs], "dense against BM25 by query")
    return [
        _drawing("Where each wins, query by query", bars, _score(dataset) + f"{measure} of dense minus BM25, sorted."),
        _drawing(
            "How far they agree", grid, "The larger a disc, the more queries; above the line dense is better.", "square"
        ),
    ]


def _score(dataset: dict[str, Any]) -> str:
    """How many queries each wins, as a bar and in words."""
    labels = {"dense": "dense better", "equal": "equal", "bm25": "BM25 better"}
    wins, at = dataset["wins"], f"{dataset['name']}/wins"
    bar = "".join(f'<span class="{key}" style="flex:{wins[key]}"></span>' for key in labels)
    words = "".join(
        f'<span class="{key}"><span class="swatch"></span><b data-figure="{escape(at)}/{key}">{wins[key]:,}</b> '
        f"{label}</span>"
        for key, label in labels.items()
    )
    return f'<span class="score">{bar}</span><span class="legend">{words}</span>'


def _drawing(title: str, drawing: str, note: str = "", class_: str = "") -> str:
    caption = f"<figcaption>{note}</figcaption>" if note else ""
    return f'<figure class="{class_}"><h3>{escape(title)}</h3>{drawing}{caption}</figure>'


def _training(curves: Curves) -> str:
    drawings = "".join(
        _drawing(tag, charts.training_curve(points, tag))
        for tag, points in curves.items()
        # What `largede watch` adds to a run's figures is no part of training, and may be hundreds of curves.
        if len(points) > 1 and not tag.startswith("evaluation")
    )
    if not drawings:
        return ""
    note = '<p class="soft">By step; every value faint, a running mean strong.</p>'
    return f'<section class="small"><h2>Training</h2>{note}<div class="pictures">{drawings}</div></section>'


def _examples(examples: list[Example]) -> str:
    shown = "".join(_example(example, place < 2) for place, example in enumerate(examples))
    return (
        f"<section><h2>{len(examples)} example searches</h2>"
        '<p class="soft">Drawn by seed from wins, losses and ties alike. A tick marks a passage judged relevant.</p>'
        f"{shown}</section>"
    )


def _example(example: Example, is_open: bool) -> str:
    values = " · ".join(f"{escape(_word(key))} {value:.2f}" for key, value in example.values.items())
    lists = "".join(_list(key, hits) for key, hits in example.lists.items())
    relevant = f"{example.relevant} relevant passage{'' if example.relevant == 1 else 's'}"
    return (
        f'<details{" open" if is_open else ""}><summary><span class="query">{escape(example.query)}</span>'
        f'<span class="tag {example.winner}">nDCG@10: {values}</span></summary><div class="lists">{lists}</div>'
        f'<p class="soft" style="padding:0 20px">{escape(example.dataset)}, {relevant}</p></details>'
    )


def _list(key: str, hits: tuple[Hit, ...]) -> str:
    found = "".join(map(_hit, hits)) or "nothing found"
    return f'<div class="{_tone(key)}"><h3>{escape(_word(key))}</h3><ol>{found}</ol></div>'


def _hit(hit: Hit) -> str:
    title, text = hit.document.title, hit.document.text
    snippet = text if len(text) <= _SNIPPET else text[:_SNIPPET].rsplit(" ", 1)[0] + " …"
    head = f"<b>{escape(title)}</b>" if title else ""
    return f"<li{' class=relevant' if hit.is_relevant else ''}>{head}{escape(snippet)}</li>"


def _about(results: dict[str, Any]) -> str:
    settings = {key.replace("_", " "): _plain(value) for key, value in results["settings"].items()}
    lines = results["about"] | settings
    items = "".join(f"<dt>{escape(key)}</dt><dd>{_monospaced(key, value)}</dd>" for key, value in lines.items())
    return f"<section><h2>What was run</h2><dl>{items}</dl></section>"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    return "none" if value is None else str(value)


def _monospaced(key: str, value: str) -> str:
    return f"<code>{escape(value)}</code>" if key in ("command", "model fingerprint", "baselines") else escape(value)


def _figure(dataset: dict[str, Any], at: str, figures: dict[str, Any]) -> str:
    measure = at.rsplit("/", 1)[1]
    return _number(f"{dataset['name']}/{at}/mean", figures[measure]["mean"])


def _range(at: str, found: dict[str, float], *, signed: bool = False) -> str:
    low, high = (_number(f"{at}/{end}", found[end], signed=signed) for end in ("low", "high"))
    return f"{low} to {high}"


def _number(at: str, value: float, *, signed: bool = False) -> str:
    shown = f"{value:+.4f}".replace("-", "−") if signed and value else f"{value:.4f}"
    return f'<span data-figure="{escape(at)}">{shown}</span>'


def _word(key: str) -> str:
    return _WORDS.get(key, key)


def _tone(key: str) -> str:
    """The class that colours a system: its own for the three lists, one for everything set beside them."""
    return key if key in _WORDS else "other"
