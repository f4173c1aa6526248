"""Example searches for the report: drawn by seed from wins, losses and ties alike, so that nobody picks them, and
those that the dense list lost by most against BM25."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from largede.errors import DataError
from largede.evaluation.report.shown import visible
from largede.evaluation.results.overview import lexical_of
from largede.retrieval.corpus import Corpus, Document, Qrels
from largede.retrieval.runs import Run

EXAMPLES = 10
LOSSES = 10
HITS = 5
SNIPPET = 220
"""Characters of a passage that are kept."""

DRAWN, LOST = "drawn", "lost"


@dataclass(frozen=True)
class Searched:
    """What examples of one collection are made of; `heads` holds the beginnings of the lists by system."""

    name: str
    queries: Mapping[str, str]
    corpus: Corpus
    qrels: Qrels
    heads: Mapping[str, Run]


@dataclass(frozen=True)
class Hit:
    title: str
    text: str
    is_relevant: bool


@dataclass(frozen=True)
class Example:
    """One query, the first hits of each list, what kind of query it is (dense, bm25 or equal), and why it is shown."""

    dataset: str
    query: str
    winner: str
    measure: str
    values: dict[str, float]
    lists: dict[str, tuple[Hit, ...]]
    relevant: int
    why: str = field(default=DRAWN)


def choose_examples(results: Mapping[str, Any], searched: Sequence[Searched], seed: int) -> list[Example]:
    """Ten queries of the first collections, shared evenly; with BM25, both lists, else the dense one alone.

    With BM25, after them the ten that dense loses by most: the worst of each collection first, then the second worst.
    """
    datasets = {dataset["name"]: dataset for dataset in results["datasets"]}
    chosen: list[Example] = []
    shown = searched[:EXAMPLES]
    for place, one in enumerate(shown):
        count = EXAMPLES * (place + 1) // len(shown) - EXAMPLES * place // len(shown)
        values = _values(datasets[one.name], one)
        chosen += _examples(one, datasets[one.name], _draw(_kinds(values), count, np.random.default_rng(seed)), DRAWN)
    for one, queries in _worst(searched, datasets):
        chosen += _examples(one, datasets[one.name], dict.fromkeys(queries, "bm25"), LOST)
    return chosen


def examples_as_json(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [asdict(example) for example in examples]


def examples_from_json(found: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Raises DataError for what `examples_as_json` did not write."""
    try:
        return [
            Example(**{**one, "lists": {key: tuple(Hit(**hit) for hit in hits) for key, hits in one["lists"].items()}})
            for one in found
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"examples that cannot be read ({error})",
            expected="what `largede evaluate` wrote",
            mend="evaluate again, or remove the file: the report then leaves them out",
        ) from error


def _values(dataset: Mapping[str, Any], one: Searched) -> dict[str, dict[str, float]]:
    """The first measure of every query by system: of dense and BM25."""
    keys = [key for key in ("dense", lexical_of(one.heads)) if key in one.heads]
    return {str(key): dataset["per_query"][key][dataset["measures"][0]] for key in keys}


def _worst(searched: Sequence[Searched], datasets: Mapping[str, Mapping[str, Any]]) -> list[tuple[Searched, list[str]]]:
    """The queries that dense loses by most, by collection: each gives its worst before one gives its second worst."""
    ranked = []
    for place, one in enumerate(searched):
        values = _values(datasets[one.name], one)
        if len(values) == 2:
            dense, bm25 = values.values()
            lost = {query: dense[query] - bm25[query] for query in dense}
            worst = sorted((amount, query) for query, amount in lost.items() if amount < 0)[:LOSSES]
            ranked += [(turn, amount, place, query) for turn, (amount, query) in enumerate(worst)]
    chosen = sorted(ranked)[:LOSSES]
    return [(one, [q for _, _, at, q in chosen if at == place]) for place, one in enumerate(searched)]


def _kinds(values: dict[str, dict[str, float]]) -> dict[str, list[str]]:
    """Queries by winner. A tie at zero teaches little: ties are those where both find something, if there are any."""
    dense, other = values["dense"], list(values.values())[-1]
    equal = [query for query in dense if dense[query] == other[query]]
    return {
        "dense": [query for query in dense if dense[query] > other[query]],
        "bm25": [query for query in dense if dense[query] < other[query]],
        "equal": [query for query in equal if dense[query] > 0] or equal,
    }


def _draw(kinds: dict[str, list[str]], count: int, rng: np.random.Generator) -> dict[str, str]:
    """Up to `count` queries with their kind, taken from the kinds in turn until all are empty."""
    shuffled = {kind: [queries[i] for i in rng.permutation(len(queries))] for kind, queries in kinds.items()}
    drawn: dict[str, str] = {}
    while len(drawn) < count and any(shuffled.values()):
        for kind, queries in shuffled.items():
            if queries and len(drawn) < count:
                drawn[queries.pop()] = kind
    return drawn


def _examples(one: Searched, dataset: Mapping[str, Any], queries: Mapping[str, str], why: str) -> list[Example]:
    """Queries with their kind as examples; only documents that are shown are read."""
    values = _values(dataset, one)
    tops = {key: {q: one.heads[key][q].ids[:HITS] for q in queries if q in one.heads[key]} for key in values}
    documents = one.corpus.lookup({id_ for ranked in tops.values() for ids in ranked.values() for id_ in ids})
    found = []
    for query, winner in queries.items():
        grades = one.qrels.get(query, {})
        relevant = {id_ for id_, grade in grades.items() if grade > 0}
        lists = {
            key: tuple(_hit(documents[id_], id_ in relevant) for id_ in ranked.get(query, ()))
            for key, ranked in tops.items()
        }
        shown = {key: measured[query] for key, measured in values.items()}
        words = visible(one.queries[query])
        found.append(Example(one.name, words, winner, dataset["measures"][0], shown, lists, len(relevant), why))
    return found


def _hit(document: Document, is_relevant: bool) -> Hit:
    title, text = visible(document.title), visible(document.text)
    return Hit(_shortened(title), _shortened(text), is_relevant)


def _shortened(text: str) -> str:
    return text if len(text) <= SNIPPET else text[:SNIPPET].rsplit(" ", 1)[0] + " …"
