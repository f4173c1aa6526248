"""Published figures, shipped with the package, and which of them may stand beside a measured collection.

A wrong comparison is worse than none: a collection is compared only where its split, its number of documents and its
number of judged queries are those that the figures were published for. `published/README.md` names every source.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

PAPER, ANSERINI, MTEB, LAYOUTS = "paper", "anserini", "mteb", "layouts"

GTR_PARAMETERS = {"gtr-base": 110_000_000, "gtr-large": 335_000_000, "gtr-xl": 1_240_000_000, "gtr-xxl": 4_870_000_000}
"""Of the encoders: Ni et al. 2021."""

NOT_ZERO_SHOT = "msmarco"
"""The papers' averages leave it out: the models were trained on it."""

ANSERINI_BM25 = {"k1": 0.9, "b": 0.4}
"""Of its regressions on BEIR; with others, ours is another system and no difference is shown."""

_GTR = "Ni et al. 2021, Large Dual Encoders Are Generalizable Retrievers"
_DONG = "Dong et al. 2022, Exploring Dual Encoder Architectures for Question Answering"
_READER = "Yang and Seo 2020, Is Retriever Merely an Approximator of Reader?"

_MTEB_TASKS = {
    "NFCorpus": "nfcorpus",
    "SciFact": "scifact",
    "ArguAna": "arguana",
    "FiQA2018": "fiqa",
    "SCIDOCS": "scidocs",
    "TRECCOVID": "trec-covid",
    "Touche2020": "webis-touche2020",
    "NQ": "nq",
    "HotpotQA": "hotpotqa",
    "QuoraRetrieval": "quora",
    "DBPedia": "dbpedia-entity",
    "FEVER": "fever",
    "ClimateFEVER": "climate-fever",
}
_MULTIREQA = {"nq": "naturalquestions"}
_MTEB_MEASURES = {
    "ndcg_at_10": "nDCG@10",
    "recall_at_100": "Recall@100",
    "mrr_at_10": "MRR@10",
    "map_at_100": "MAP@100",
}


@dataclass(frozen=True)
class PublishedFigure:
    """One number of a table: `value` is a share of one, `family` says which figures belong into one table of ours."""

    dataset: str
    measure: str
    system: str
    value: float
    family: str
    source: str


@dataclass(frozen=True)
class Size:
    """What a figure was published for."""

    split: str
    documents: int
    queries: int


def published_beside(name: str, found: Size) -> tuple[list[PublishedFigure], str]:
    """The figures that may stand beside a collection, and a note where its name is known but its size is another's.

    Names of MultiReQA come from the catalogue alone, for no folder's name holds a slash; their sizes are not known.
    """
    figures = _by_dataset().get(name, [])
    expected = published_sizes().get(name)
    if found == expected:
        return figures, ""
    if expected is None:
        if figures and name.startswith("multireqa/"):
            said = "the size behind the published figures is not known; sentences may be split otherwise"
            return figures, f"{name}: {said}."
        return [], ""
    return [], (
        f"{name}: nothing published is set beside it. It has {found.documents:,} documents and {found.queries:,} "
        f"judged queries (split {found.split}); the figures were published for {expected.documents:,} documents and "
        f"{expected.queries:,} judged queries (split {expected.split})."
    )


def published_beside_group(name: str, parts: Mapping[str, Size]) -> tuple[list[PublishedFigure], str]:
    """The same for a mean over parts, by their names: all parts that were published, and each of its size."""
    figures = _by_dataset().get(name, [])
    expected = {part: size for part, size in published_sizes().items() if part.startswith(f"{name}/")}
    if not figures or dict(parts) == expected:
        return figures, ""
    missing = [part for part in expected if part not in parts]
    why = f"without {', '.join(missing)}" if missing else "with parts of another size"
    return [], f"{name}: nothing published is set beside the mean, which is over {len(parts)} parts {why}."


@cache
def published_figures() -> tuple[PublishedFigure, ...]:
    """All that a report may show beside its own."""
    return (*_paper(), *_anserini(), *_mteb(), *_layouts())


@cache
def published_sizes() -> dict[str, Size]:
    return {
        row["dataset"]: Size(row["split"], int(row["documents"]), int(row["queries"])) for row in _rows("sizes.csv")
    }


INDEX_HEADS = ("index", "top 1", "top 20", "top 50", "top 100", "search s, top 1", "search s, top 10", "file")


def published_indexes() -> tuple[list[dict[str, str]], str]:
    """Recall in percent at 1, 20, 50, 100 of flat, HNSW and HNSW-SQ8 indexes as printed, and the source."""
    return _rows("reader_indexes.csv"), _READER


@cache
def _by_dataset() -> dict[str, list[PublishedFigure]]:
    found: dict[str, list[PublishedFigure]] = {}
    for figure in published_figures():
        found.setdefault(figure.dataset, []).append(figure)
    return found


def _paper() -> Iterator[PublishedFigure]:
    yield from _wide("gtr_beir_ndcg10.csv", "nDCG@10", PAPER, f"{_GTR}, table 3")
    for figure in _wide("gtr_beir_recall100.csv", "Recall@100", PAPER, f"{_GTR}, table 8"):
        # BEIR's Recall@100 of TREC-COVID is capped: it divides by 100 where more are relevant. Ours is trec_eval's.
        if figure.dataset != "trec-covid":
            yield figure
    for row in _rows("gtr_msmarco.csv"):
        system = {"tas-balanced": "tas-b"}.get(row["model"], row["model"])
        for key, measure in (("mrr@10", "MRR@10"), ("recall@1000", "Recall@1000")):
            yield PublishedFigure("msmarco", measure, system, float(row[key]), PAPER, f"{_GTR}, table 7")


def _anserini() -> Iterator[PublishedFigure]:
    reference = _reference()
    source = f"Anserini's regressions (commit {reference['sources']['castorini/anserini'][:12]})"
    parts: dict[tuple[str, str], list[float]] = {}
    for key, systems in reference["anserini_bm25"].items():
        dataset = key.replace("cqadupstack-", "cqadupstack/")
        for fields in ("flat", "multifield"):
            for name, value in systems[fields].items():
                measure = name.replace("R@", "Recall@")
                yield PublishedFigure(dataset, measure, f"Anserini {fields}", value, ANSERINI, source)
                if dataset.startswith("cqadupstack/"):
                    parts.setdefault((measure, fields), []).append(value)
    for (measure, fields), values in parts.items():
        mean = sum(values) / len(values)
        yield PublishedFigure(
            "cqadupstack", measure, f"Anserini {fields}", mean, ANSERINI, f"{source}, mean of the parts"
        )


def _mteb() -> Iterator[PublishedFigure]:
    reference = _reference()
    source = f"MTEB's results (commit {reference['sources']['embeddings-benchmark/results'][:12]})"
    for model, tasks in reference["mteb"].items():
        system = model.partition("__")[2].replace("baseline-", "").replace("gtr-t5-", "gtr-")
        for task, measured in tasks.items():
            for key, measure in _MTEB_MEASURES.items():
                # nDCG@10 of the GTR models comes from the table below, which has more datasets.
                if measured[key] is not None and (system == "bm25s" or measure != "nDCG@10"):
                    yield PublishedFigure(_MTEB_TASKS[task], measure, f"MTEB {system}", measured[key], MTEB, source)
    for figure in _wide("gtr_mteb_ndcg10.csv", "nDCG@10", MTEB, source):
        yield PublishedFigure(figure.dataset, figure.measure, f"MTEB {figure.system}", figure.value, MTEB, source)


def _layouts() -> Iterator[PublishedFigure]:
    for row in _rows("layouts_open_nq.csv"):
        for cut in (5, 20, 100):
            system, value = f"{row['layout']} {row['size']}", float(row[f"top{cut}"]) / 100
            yield PublishedFigure("open-nq", f"Answer@{cut}", system, value, LAYOUTS, f"{_DONG}, table 4")
    for row in _rows("layouts_multireqa.csv"):
        # Our lists end at 1,000: there the mean reciprocal rank is that of whole lists but for a thousandth at most.
        measure = {"p@1": "P@1", "mrr": "MRR@1000"}[row.pop("metric")]
        system = row.pop("layout")
        for part, percent in row.items():
            if percent:
                dataset = f"multireqa/{_MULTIREQA.get(part, part)}"
                yield PublishedFigure(dataset, measure, system, float(percent) / 100, LAYOUTS, f"{_DONG}, table 2")


def _wide(file: str, measure: str, family: str, source: str) -> Iterator[PublishedFigure]:
    """A table with a row for each dataset and a column for each system."""
    for row in _rows(file):
        dataset = row.pop("dataset")
        for system, value in row.items():
            if value:
                yield PublishedFigure(dataset, measure, system, float(value), family, source)


def _rows(file: str) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(file).splitlines()))


def _reference() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_text("bm25_and_mteb_reference.json"))
    return found


def _text(file: str) -> str:
    return resources.files("largede.evaluation.results").joinpath("published", file).read_text(encoding="utf-8")


@cache
def published_order(family: str) -> tuple[str, ...]:
    """All systems of a family, in the order of its tables."""
    return tuple(dict.fromkeys(figure.system for figure in published_figures() if figure.family == family))
