"""Questions and their answers as points for TensorBoard's embedding projector."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from largede.evaluation.evaluate import Evaluation
from largede.evaluation.task import Task
from largede.files import write_text
from largede.retrieval.encode import open_embeddings, read_shards
from largede.retrieval.encoder import embed_checked
from largede.runs.evaluated import LABELS, POINTS

MOST_QUESTIONS = 200
LONGEST_LABEL = 120


@dataclass(frozen=True)
class Point:
    text: str
    kind: str
    collection: str
    query: str
    vector: np.ndarray


def write_points(out: Path, evaluation: Evaluation) -> None:
    """Write POINTS (a vector a line) and LABELS into `out`: questions of every collection, and an answer of each."""
    share = -(-MOST_QUESTIONS // len(evaluation.tasks))
    points = [point for task in evaluation.tasks for point in points_of(evaluation, task, share)]
    labels = [(_label(point.text), point.kind, point.collection, point.query) for point in points]
    write_text(out / POINTS, "".join(_line(f"{value:.5g}" for value in point.vector) for point in points))
    write_text(out / LABELS, "".join(map(_line, [("text", "kind", "collection", "query"), *labels])))


def points_of(evaluation: Evaluation, task: Task, most: int) -> list[Point]:
    """The first questions of a collection that have an answer, and after them the best-judged passage of each."""
    best = {query: max(grades, key=lambda name: grades[name]) for query, grades in task.test.qrels.items()}
    answers = dict([(query, name) for query, name in best.items() if task.test.qrels[query][name] > 0][:most])
    texts = [task.test.queries[query] for query in answers]
    query_BD = embed_checked(evaluation.job.model.load(), texts, "query", task.test.max_query_tokens)
    documents, vectors = task.test.corpus.lookup(set(answers.values())), vectors_of(evaluation, task, answers.values())
    collection = task.test.name
    asked = zip(answers, texts, query_BD, strict=True)
    return [Point(text, "question", collection, query, vector) for query, text, vector in asked] + [
        Point(documents[name].contents, "answer", collection, query, vectors[name]) for query, name in answers.items()
    ]


def vectors_of(evaluation: Evaluation, task: Task, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """The stored vectors of the named passages."""
    folder = evaluation.embeddings_path("dense", evaluation.job.model, task.test)
    names, found = set(wanted), dict[str, np.ndarray]()
    for ids, vectors in read_shards(open_embeddings(folder)):
        found |= {name: vectors[row] for row, name in enumerate(ids) if name in names}
    return found


def _label(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= LONGEST_LABEL else words[: LONGEST_LABEL - 1] + "…"


def _line(fields: Iterable[str]) -> str:
    return "\t".join(fields) + "\n"
