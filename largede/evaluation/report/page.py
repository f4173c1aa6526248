"""The page people look at: one HTML file that needs nothing else, from the figures of results.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from largede.evaluation.report import across, charts, searches
from largede.evaluation.report.beside import beside_published
from largede.evaluation.report.collection import collections, counted_queries
from largede.evaluation.report.curves import Curves
from largede.evaluation.report.elements import counted, drawing, interval, number, p_value, tone
from largede.evaluation.report.examples import Example
from largede.evaluation.report.indexes import indexes
from largede.evaluation.report.shown import html, plain
from largede.evaluation.report.style import STYLE
from largede.evaluation.results.overview import labels_of, overview_rows


def render_report(results: Mapping[str, Any], examples: Sequence[Example], curves: Curves) -> str:
    """The whole page. All text of corpora, queries, settings and commands is escaped."""
    sections = [
        _header(results),
        across.overview(results),
        across.differences(results),
        across.size_picture(results),
        beside_published(results),
        collections(results),
        indexes(results),
        _training(curves),
        searches.losses(results, examples),
        searches.drawn(results, examples),
        _about(results),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{html(results["title"])}</title>'
        f"<style>{STYLE}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def _header(results: Mapping[str, Any]) -> str:
    averages = results["averages"]
    said = _finding_on_average(results, averages[0]) if averages else _finding(results)
    cards = "".join(_card(results, system) for system in results["systems"])
    return (
        f'<p class="eyebrow">largede · retrieval report</p><h1>{html(results["title"])}</h1>'
        f'<p class="lead">{said}</p>{_model(results)}<div class="cards">{cards}</div>'
    )


def _model(results: Mapping[str, Any]) -> str:
    """Which model the dense lists are of; evaluations side by side have it in their columns' names."""
    name = results["settings"].get("model")
    dense = [system for system in results["systems"] if system["key"] == "dense"]
    if not name or not dense:
        return ""
    size = f", {dense[0]['parameters'] / 1e6:,.1f} M parameters" if dense[0]["parameters"] else ""
    return f'<p class="soft">dense: {html(str(name))}{size}</p>'


def _card(results: Mapping[str, Any], system: Mapping[str, Any]) -> str:
    """One system's figure: the average where there is one, else that of the only collection."""
    key = system["key"]
    if results["averages"]:
        average = results["averages"][0]
        at = f"average of {len(average['rows'])}/{key}/{average['measure']}/mean"
        shown = number(at, average["systems"][key])
        small = f"{html(average['measure'])} · average of {len(average['rows'])}"
    else:
        dataset = overview_rows(results)[0]
        measure = dataset["measures"][0]
        found, at = dataset["figures"][key][measure], f"{dataset['name']}/{key}/{measure}"
        shown = number(f"{at}/mean", found["mean"])
        small = f"{html(measure)} · {interval(at, found)}"
    return (
        f'<div class="card {tone(key)}"><span class="name">{html(system["label"])}</span>'
        f'<div class="big">{shown}</div><span class="soft">{small}</span></div>'
    )


def _finding(results: Mapping[str, Any]) -> str:
    """The first collection in one or two sentences that follow from its figures."""
    dataset = overview_rows(results)[0]
    measure, name, figures = dataset["measures"][0], html(dataset["name"]), dataset["figures"]
    labels = labels_of(results)
    key = _headline({system: found[measure]["mean"] for system, found in figures.items()})
    mean = number(f"{dataset['name']}/{key}/{measure}/mean", figures[key][measure]["mean"])
    scale = f"{counted_queries(dataset)} over {counted(dataset['documents'], 'document')} of {name}"
    reached = f"On {scale}, the {html(labels[key])} ranking reaches {html(measure)} {mean}."
    entry = next((d for d in dataset["differences"] if d["one"] == key), None)
    if entry is None:
        return reached
    found, at = entry["figures"][measure], f"{dataset['name']}/{key}-{entry['other']}/{measure}"
    against = (
        f"That is {number(f'{at}/mean', found['mean'], signed=True)} against {html(labels[entry['other']])}, the 95 % "
        f"interval of the paired difference {_where(found)} (p {p_value(f'{at}/p_t', found['p_t'])}, paired t-test)."
    )
    return f"{reached} {against} {_one_sided(dataset.get('fusion'))}"


def _finding_on_average(results: Mapping[str, Any], average: Mapping[str, Any]) -> str:
    """All collections in two sentences."""
    labels, measure, count = labels_of(results), average["measure"], len(average["rows"])
    key = _headline(average["systems"])
    mean = number(f"average of {count}/{key}/{measure}/mean", average["systems"][key])
    said = f"On average over {count} collections, the {html(labels[key])} ranking reaches {html(measure)} {mean}."
    rows = overview_rows(results)
    entry = next((d for d in rows[0]["differences"] if d["one"] == key), None)
    if entry is None:
        return said
    other = entry["other"]
    found = [
        d["figures"][row["measures"][0]]
        for row in rows
        for d in row["differences"]
        if (d["one"], d["other"]) == (key, other)
    ]
    better, worse = (sum(f["p_holm"] < 0.05 and (f["mean"] > 0) == up for f in found) for up in (True, False))
    return (
        f"{said} Against {html(labels[other])} it is better on {better} and worse on {worse} of "
        f"{counted(len(found), 'collection')} (p below 0.05 in the paired t-test, corrected over them)."
    )


def _headline(means: Mapping[str, float]) -> str:
    """The list that an evaluation is about; of several models side by side, the best one."""
    return next((key for key in ("fused", "dense") if key in means), max(means, key=lambda key: means[key]))


def _one_sided(fusion: Mapping[str, Any] | None) -> str:
    """A word where the chosen weight makes fusion empty."""
    words = {0.0: "The chosen weight leaves the dense list out.", 1.0: "The chosen weight leaves BM25 out."}
    return words.get(fusion["weight"], "") if fusion else ""


def _where(found: Mapping[str, Any]) -> str:
    return {"above": "lying wholly above zero", "below": "lying wholly below zero", "across": "reaching across zero"}[
        found["side"]
    ]


def _training(curves: Curves) -> str:
    drawings = "".join(
        drawing(tag, charts.training_curve(points, tag))
        for tag, points in curves.items()
        # What `largede watch` adds to a run's figures is no part of training, and may be hundreds of curves.
        if len(points) > 1 and not tag.startswith("evaluation")
    )
    if not drawings:
        return ""
    note = '<p class="soft">By step; every value faint, a running mean strong.</p>'
    return f'<section class="small"><h2>Training</h2>{note}<div class="pictures">{drawings}</div></section>'


def _about(results: Mapping[str, Any]) -> str:
    # The two may have keys in common.
    lines = [*results["about"].items(), *((key.replace("_", " "), value) for key, value in results["settings"].items())]
    items = "".join(f"<dt>{html(key)}</dt><dd>{_monospaced(key, plain(value))}</dd>" for key, value in lines)
    return f"<section><h2>What was run</h2><dl>{items}</dl></section>"


def _monospaced(key: str, value: str) -> str:
    return f"<code>{html(value)}</code>" if key in ("command", "model fingerprint", "baselines") else html(value)
