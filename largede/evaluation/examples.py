"""Example searches for the report: drawn by seed from wins, losses and ties alike, so that nobody picks them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from largede.evaluation.metrics import MEASURES
from largede.evaluation.results import Task
from largede.retrieval.corpus import Document
from largede.retrieval.runs import Run

EXAMPLES = 10
HITS = 5


@dataclass(frozen=True)
class Hit:
    document: Document
    is_relevant: bool


@dataclass(frozen=True)
class Example:
    """One query, the first hits of each list, and what kind of query it is: dense, bm25 or equal."""

    dataset: str
    query: str
    winner: str
    values: dict[str, float]
    lists: dict[str, tuple[Hit, ...]]
    relevant: int


def choose_examples(
    results: dict[str, Any], tasks: tuple[Task, ...], heads: dict[str, dict[str, Run]], seed: int
) -> list[Example]:
    """Ten queries of the first collections, shared evenly; with BM25, both lists, else the dense one alone.

    `heads` holds the beginnings of the lists by collection and system.
    """
    chosen: list[Example] = []
    shown = tasks[:EXAMPLES]
    for place, (task, dataset) in enumerate(zip(shown, results["datasets"], strict=False)):
        count = EXAMPLES * (place + 1) // len(shown) - EXAMPLES * place // len(shown)
        chosen += _of_one(task, dataset, heads[task.test.name], count, seed)
    return chosen


def _of_one(task: Task, dataset: dict[str, Any], heads: dict[str, Run], count: int, seed: int) -> list[Example]:
    systems: list[str] = [key for key in ("dense", "bm25") if key in heads]
    values = {key: dataset["per_query"][key][MEASURES[0]] for key in systems}
    queries = _draw(_kinds(values), count, np.random.default_rng(seed))
    lists = {key: heads[key] for key in systems}
    documents = task.test.corpus.lookup(
        {id_ for run in lists.values() for query in queries if query in run for id_ in run[query].ids}
    )
    return [_example(task, query, winner, values, lists, documents) for query, winner in queries.items()]


def _kinds(values: dict[str, dict[str, float]]) -> dict[str, list[str]]:
    """Queries by winner. A tie at zero teaches little: ties are those where both find something, if there are any."""
    dense, other = values["dense"], values.get("bm25", values["dense"])
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


def _example(
    task: Task,
    query: str,
    winner: str,
    values: dict[str, dict[str, float]],
    lists: dict[str, Run],
    documents: dict[str, Document],
) -> Example:
    grades = task.test.qrels[query]
    hits = {
        key: tuple(Hit(documents[id_], grades.get(id_, 0) > 0) for id_ in (run[query].ids if query in run else ()))
        for key, run in lists.items()
    }
    relevant = sum(grade > 0 for grade in grades.values())
    return Example(
        task.test.name, task.test.queries[query], winner, {key: v[query] for key, v in values.items()}, hits, relevant
    )
