"""Several finished evaluations side by side: models as columns, collections as rows, the same tests over queries."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from largede.errors import DataError
from largede.evaluation.measures.metrics import PerQuery
from largede.evaluation.report import read_report, write_report
from largede.evaluation.report.elements import counted
from largede.evaluation.report.shown import visible
from largede.evaluation.results.collect import Measured, Pair, System, collect_results
from largede.evaluation.results.overview import labels_of, lexical_of

Named = Mapping[str, Mapping[str, Any]]
"""Results by the name of their column."""


def rewrite_report(folders: Sequence[Path], out: Path) -> str:
    """One folder: its report again, from its JSON files alone. Several: their models in one report. Says what it did.

    Raises DataError for a folder without readable results, and for evaluations that have no collection in common.
    """
    try:
        if len(folders) == 1:
            results, examples, curves = read_report(folders[0])
            write_report(out, results, examples, curves)
            return f"{out / 'report.html'}: {folders[0]} again"
        results = compare_reports(_named(folders))
        write_report(out, results, [], {})
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{' or '.join(map(str, folders))} holds a results.json or page.json that cannot be shown ({error!r})",
            expected="what this version of largede writes",
            mend="run the same `largede evaluate` again: what is computed already is kept",
        ) from error
    common = counted(len(results["datasets"]), "collection")
    return f"{out / 'report.html'}: {len(folders)} evaluations on {common}"


def compare_reports(named: Named) -> dict[str, Any]:
    """One results.json of several: the dense and fused lists of each; BM25 once where all have the same, else of each.

    Only collections that all of them measured on the same data are compared; `about` says which are left out and why.
    """
    shared, left_out = _shared(named)
    if not shared:
        raise DataError(
            f"no collection that all of {', '.join(named)} measured ({'; '.join(left_out.values()) or 'none at all'})",
            expected="evaluations on the same collections and splits",
            mend="evaluate all models on one set of collections",
        )
    bm25 = _same_bm25(named, shared)
    systems, pairs = _systems(named, bm25)
    measured = [_measured(named, dataset, bm25) for dataset in shared]
    seed = next(iter(named.values())).get("seed", 0)
    results = collect_results("Models side by side", systems, measured, seed, pairs=pairs)
    results["settings"] = {name: results_of["settings"] for name, results_of in named.items()}
    results["about"] = {f"left out: {name}": why for name, why in left_out.items()} | _not_shown(named)
    return results


def _named(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Results by the shortest name that tells the folders apart."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise DataError("a folder given twice", expected="each folder once", mend="leave one out")
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return {visible(name): read_report(path)[0] for name, path in zip(names, paths, strict=True)}


def _shared(named: Named) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    """Entries of the first results whose collection all have alike, and why others are left out."""
    found = {name: {d["name"]: d for d in results["datasets"]} for name, results in named.items()}
    shared, left_out = [], {}
    for dataset in dict.fromkeys(key for datasets in found.values() for key in datasets):
        entries = {name: datasets.get(dataset) for name, datasets in found.items()}
        missing = [name for name, entry in entries.items() if entry is None]
        present = [entry for entry in entries.values() if entry is not None]
        if missing:
            left_out[dataset] = f"not measured by {', '.join(missing)}"
        elif len({(entry["fingerprint"], entry["split"]) for entry in present}) > 1:
            left_out[dataset] = "corpus, queries or judgements differ"
        elif not _measures(present):
            left_out[dataset] = "no measure in common"
        elif len({_queries(entry) for entry in present}) > 1:
            left_out[dataset] = "measured over other queries"
        else:
            shared.append(present[0])
    return shared, left_out


def _queries(entry: Mapping[str, Any]) -> frozenset[frozenset[str]]:
    """The sets of queries that were measured: one, but in files of another version or another hand."""
    per_query = entry["per_query"].values()
    return frozenset(frozenset(values) for measured in per_query for values in measured.values())


def _measures(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return [m for m in entries[0]["measures"] if all(m in entry["measures"] for entry in entries)]


def _entries(named: Named, dataset: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        name: next(d for d in results["datasets"] if d["name"] == dataset["name"]) for name, results in named.items()
    }


def _same_bm25(named: Named, shared: Sequence[Mapping[str, Any]]) -> bool:
    """Whether BM25 was run everywhere with the same outcome for every query: then it is one column."""
    for dataset in shared:
        entries = _entries(named, dataset)
        measures = _measures(list(entries.values()))
        kinds = {lexical_of(entry["per_query"]) for entry in entries.values()}
        lists = [_lexical(entry) for entry in entries.values()]
        first = lists[0]
        if (
            len(kinds) > 1
            or first is None
            or any(other is None or any(first[m] != other[m] for m in measures) for other in lists)
        ):
            return False
    return True


def _lexical(entry: Mapping[str, Any]) -> Any:
    """The figures of every query of the list that the others are compared with, or None."""
    return entry["per_query"].get(lexical_of(entry["per_query"]))


def _lexical_key(named: Named) -> str:
    """Of the first; asked where all have the same."""
    return lexical_of(labels_of(next(iter(named.values())))) or "bm25"


def _not_shown(named: Named) -> dict[str, str]:
    """The lists of each that have no column."""
    shown = {"dense", "fused"}
    found = {}
    for name, results in named.items():
        labels = labels_of(results)
        left = [label for key, label in labels.items() if key not in {*shown, lexical_of(labels)}]
        if left:
            found[f"{name}: in its own report alone"] = ", ".join(left)
    return found


def _systems(named: Named, bm25: bool) -> tuple[list[System], list[Pair]]:
    """Columns and what is compared: every model with the first, and every column with BM25."""
    systems, models = [], []
    for name, results in named.items():
        known = {system["key"]: system for system in results["systems"]}
        if "dense" in known:
            systems.append(System(name, name, known["dense"].get("parameters")))
            models.append(name)
        if "fused" in known:
            systems.append(System(f"{name} fused", f"{name}, fused"))
        lexical = lexical_of(known)
        if lexical and not bm25:
            systems.append(System(f"{name} bm25", f"{name}, {known[lexical]['label']}"))
    pairs = [(other, models[0]) for other in models[1:]]
    keys = {system.key for system in systems}
    if bm25:
        pairs += [(system.key, "bm25") for system in systems]
        systems.append(System("bm25", labels_of(next(iter(named.values())))[_lexical_key(named)]))
    else:
        pairs += [
            (one, f"{name} bm25") for name in named for one in (name, f"{name} fused") if {one, f"{name} bm25"} <= keys
        ]
    return systems, pairs


def _measured(named: Named, dataset: Mapping[str, Any], bm25: bool) -> Measured:
    entries = _entries(named, dataset)
    measures = _measures(list(entries.values()))
    queries = list(dataset["per_query"][next(iter(dataset["per_query"]))][measures[0]])
    values: dict[str, PerQuery] = {}
    for name, entry in entries.items():
        lexical = None if bm25 else lexical_of(entry["per_query"])
        for key, column in (("dense", name), ("fused", f"{name} fused"), (lexical, f"{name} bm25")):
            if key in entry["per_query"]:
                values[column] = _in_order(entry["per_query"][key], measures, queries)
    if bm25:
        values["bm25"] = _in_order(dataset["per_query"][_lexical_key(named)], measures, queries)
    return Measured(
        name=dataset["name"],
        split=dataset["split"],
        fingerprint=dataset["fingerprint"],
        documents=dataset["documents"],
        values=values,
        measures=tuple(measures),
        group=dataset["group"],
    )


def _in_order(
    per_query: Mapping[str, Mapping[str, float]], measures: Sequence[str], queries: Sequence[str]
) -> PerQuery:
    return {measure: {query: per_query[measure][query] for query in queries} for measure in measures}
