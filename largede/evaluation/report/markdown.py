"""The report as Markdown: tables only, for a model card, a paper or a mail."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from largede.evaluation.report.digits import four_digits, p_digits, published_digits
from largede.evaluation.report.examples import LOST, Example, Hit
from largede.evaluation.report.shown import markdown, plain
from largede.evaluation.results.overview import (
    labels_of,
    lexical_of,
    overview_rows,
    published_sources,
    published_systems,
    published_value,
    rows_with_parts,
    twin_of,
)
from largede.evaluation.results.published import ANSERINI, INDEX_HEADS, LAYOUTS, MTEB, PAPER, published_indexes

Row = Mapping[str, Any]
_TITLES = {PAPER: "Beside the paper", ANSERINI: "BM25 beside Anserini", MTEB: "Beside MTEB", LAYOUTS: "Five layouts"}


def render_markdown(results: Mapping[str, Any], examples: Sequence[Example] = ()) -> str:
    """All figures of results.json; of single queries, those that dense loses by most.

    Published columns carry the word `published`.
    """
    parts = [f"# {markdown(results['title'])}", *_model(results), *_overview(results)]
    for family in (PAPER, ANSERINI, MTEB, LAYOUTS):
        for measure in results["measures"]:
            parts += _beside(results, family, measure)
    parts += _differences(results)
    for dataset in results["datasets"]:
        parts += _collection(results, dataset)
    parts += [*_losses(results, examples), *_fusion(results), *_lengths(results), *_indexes(results), *_about(results)]
    return "\n\n".join(parts) + "\n"


def _model(results: Mapping[str, Any]) -> list[str]:
    name = results["settings"].get("model")
    return [f"dense: {markdown(str(name))}"] if name else []


def _overview(results: Mapping[str, Any]) -> list[str]:
    rows = overview_rows(results)
    columns = published_systems(rows, PAPER)
    systems = results["systems"]
    heads = ["collection", "measure", *(markdown(s["label"]) for s in systems), *(f"{c} (published)" for c in columns)]
    body = []
    for row in rows:
        measure = row["measures"][0]
        name = markdown(row["name"]) + (f" (mean of {len(row['parts'])})" if "parts" in row else "")
        ours = [four_digits(row["figures"][s["key"]][measure]["mean"]) for s in systems]
        body.append(
            [name, markdown(measure), *ours, *(_published(published_value(row, c, measure, PAPER)) for c in columns)]
        )
    for average in results["averages"]:
        without = ", ".join(map(markdown, average["left_out"]))
        name = f"average of {len(average['rows'])}" + (f", without {without}" if without else "")
        ours = [four_digits(average["systems"][s["key"]]) for s in systems]
        body.append(
            [name, markdown(average["measure"]), *ours, *(_published(average["published"].get(c)) for c in columns)]
        )
    notes = [markdown(row["note"]) for row in rows if row["note"]]
    return ["## All collections", _table(heads, body), *_sources(rows, PAPER), *notes]


def _beside(results: Mapping[str, Any], family: str, measure: str) -> list[str]:
    if family == PAPER and measure == results["measures"][0]:
        return []
    rows = [
        row
        for row in rows_with_parts(results)
        if measure in row["measures"] and published_systems([row], family, measure)
    ]
    systems = [s for s in results["systems"] if family != ANSERINI or s["key"].startswith("bm25")]
    if not rows or not systems:
        return []
    columns = published_systems(rows, family, measure)
    keys = [system["key"] for system in systems]
    twins = {column: twin for column in columns for twin in [twin_of(results, column)] if twin in keys}
    heads = ["collection", *(markdown(s["label"]) for s in systems)]
    for column in columns:
        heads += [f"{column} (published)", *(["difference"] if column in twins else [])]
    body = []
    for row in rows:
        ours = {key: row["figures"][key][measure]["mean"] for key in keys}
        cells = [markdown(row["name"]), *map(four_digits, ours.values())]
        for column in columns:
            value = published_value(row, column, measure, family)
            cells.append(_published(value, family))
            if column in twins:
                cells.append("–" if value is None else four_digits(ours[twins[column]] - value, signed=True))
        body.append(cells)
    return [f"## {_TITLES[family]}: {markdown(measure)}", _table(heads, body), *_sources(rows, family, measure)]


def _differences(results: Mapping[str, Any]) -> list[str]:
    heads = ["collection", "measure", "difference", "95 % interval", "p (t-test)", "p (bootstrap)", "p (t-test, Holm)"]
    rows = overview_rows(results)
    parts = []
    for place, entry in enumerate(rows[0]["differences"]):
        body = []
        for row in rows:
            measure = row["measures"][0]
            body.append(
                [markdown(row["name"]), markdown(measure), *_compared(row["differences"][place]["figures"][measure])]
            )
        parts += [f"### {markdown(entry['label'])}", _table(heads, body)]
    return ["## Differences", *parts] if parts else []


def _compared(found: Mapping[str, Any]) -> list[str]:
    spread = f"{four_digits(found['low'], signed=True)} to {four_digits(found['high'], signed=True)}"
    ps = [p_digits(found[kind]) for kind in ("p_t", "p_bootstrap", "p_holm")]
    return [four_digits(found["mean"], signed=True), spread, *ps]


def _collection(results: Mapping[str, Any], dataset: Row) -> list[str]:
    """Every measure with its interval."""
    measures = dataset["measures"]
    body = []
    for system in results["systems"]:
        figures = [dataset["figures"][system["key"]][measure] for measure in measures]
        shown = [f"{four_digits(f['mean'])} ({four_digits(f['low'])} to {four_digits(f['high'])})" for f in figures]
        body.append([markdown(system["label"]), *shown])
    size = (
        f"{dataset['documents']:,} documents, {dataset['queries']:,} queries of the split {markdown(dataset['split'])}"
    )
    return [f"## {markdown(dataset['name'])}", size, _table(["system", *map(markdown, measures)], body)]


def _losses(results: Mapping[str, Any], examples: Sequence[Example]) -> list[str]:
    """The queries that dense loses by most to BM25, with what each list has first."""
    labels = labels_of(results)
    lists = {key: labels[key] for key in ("dense", lexical_of(labels)) if key in labels}
    lost = [example for example in examples if example.why == LOST]
    body = [
        [
            markdown(example.dataset),
            markdown(example.query),
            markdown(example.measure),
            *(four_digits(example.values[key]) for key in lists),
            *(_first(example.lists.get(key, ())) for key in lists),
        ]
        for example in lost
    ]
    shown = [markdown(label) for label in lists.values()]
    heads = ["collection", "query", "measure", *shown, *(f"first of {label}" for label in shown)]
    return ["## Where dense loses to BM25", _table(heads, body)] if body else []


def _first(hits: Sequence[Hit]) -> str:
    if not hits:
        return "nothing"
    return f"{'✓ ' if hits[0].is_relevant else ''}{markdown(f'{hits[0].title} {hits[0].text}'.strip())}"


def _fusion(results: Mapping[str, Any]) -> list[str]:
    """The weight of the dense list in the fused one, and the queries it was chosen on."""
    body = [
        [markdown(dataset["name"]), f"{dataset['fusion']['weight']:.2f}", markdown(dataset["fusion"]["chosen_on"])]
        for dataset in results["datasets"]
        if dataset["fusion"]
    ]
    return ["## Fusion", _table(["collection", "weight of the dense list", "chosen on"], body)] if body else []


def _lengths(results: Mapping[str, Any]) -> list[str]:
    labels = labels_of(results)
    body = []
    for dataset in results["datasets"]:
        found = dataset["lengths"]
        if found:
            kinds = {name: found[name] for name in ("corpus", "relevant") if name in found}
            kinds |= {f"found by {labels[key]}": spread for key, spread in found["retrieved"].items() if key in labels}
            for name, spread in kinds.items():
                numbers = [f"{spread[key]:,.1f}" for key in ("mean", "low", "median", "high")]
                body.append([markdown(dataset["name"]), markdown(name), *numbers])
    heads = ["collection", "passages", "mean words", "tenth percentile", "median", "ninetieth percentile"]
    return ["## Lengths of passages", _table(heads, body)] if body else []


def _indexes(results: Mapping[str, Any]) -> list[str]:
    rows = results["indexes"]
    if not rows:
        return []
    cuts = sorted({int(cut) for row in rows for cut in row["recall"]})
    heads = [
        "index",
        *(f"recall at {cut}" for cut in cuts),
        "build s",
        "ms at 1",
        "ms of a batch",
        "MiB in memory",
        "MiB on disk",
    ]
    body = []
    for row in rows:
        recall = {int(cut): f"{value:.4f}" for cut, value in row["recall"].items()}
        numbers = [f"{row['build_s']:.1f}"]
        numbers += [f"{row[name]:.2f}" for name in ("ms_per_query_batch_1", "ms_per_query_large_batch")]
        numbers += [f"{row[name] / 2**20:.1f}" for name in ("bytes_in_memory", "bytes_on_disk")]
        name = f"{row['kind']} ({row['dataset']})" if row.get("dataset") else row["kind"]
        body.append([markdown(name), *(recall.get(cut, "–") for cut in cuts), *numbers])
    published, source = published_indexes()
    theirs = [list(row.values()) for row in published]
    names = [f"{name} (published)" for name in INDEX_HEADS]
    return ["## Indexes", _table(heads, body), _table(names, theirs), f"Published: {markdown(source)}."]


def _about(results: Mapping[str, Any]) -> list[str]:
    lines = [*results["about"].items(), *results["settings"].items()]
    return [
        "## What was run",
        _table(["", ""], [[markdown(str(k).replace("_", " ")), markdown(plain(v))] for k, v in lines]),
    ]


def _published(value: float | None, family: str = PAPER) -> str:
    return "–" if value is None else published_digits(value, family)


def _sources(rows: Sequence[Row], family: str, measure: str | None = None) -> list[str]:
    """Where the figures of one measure are from, or (None) those of each row's first."""
    found = published_sources(rows, family, measure)
    return [f"Published: {markdown(found)}."] if found else []


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are Markdown already; all columns but the first are numbers."""
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, rule, *rows])
