"""Questions and their answers as points for TensorBoard's embedding projector."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from largede.evaluation.evaluate import Evaluation
from largede.evaluation.evaluated import LABELS, POINTS
from largede.evaluation.results import Task
from largede.files import write_text
from largede.retrieval.encode import open_embeddings, read_shards
from largede.retrieval.encoder import embed_checked

MOST_QUESTIONS = 200
LONGEST_LABEL = 120


def write_points(out: Path, evaluation: Evaluation) -> None:
    """Write POINTS (a vector a line) and LABELS into `out`: questions of the first collection, each with an answer."""
    task = evaluation.tasks[0]
    answers = answers_of(task)
    queries = [task.test.queries[query] for query in answers]
    vectors = vectors_of(evaluation, set(answers.values()))
    query_BD = embed_checked(evaluation.job.model.load(), queries, "query", evaluation.job.max_query_tokens)
    documents = task.test.corpus.lookup(set(answers.values()))
    rows = [*query_BD, *(vectors[name] for name in answers.values())]
    labels = [(_label(text), "question", query) for query, text in zip(answers, queries, strict=True)]
    labels += [(_label(documents[name].contents), "answer", query) for query, name in answers.items()]
    write_text(out / POINTS, "".join(_line(f"{value:.5g}" for value in row) for row in rows))
    write_text(out / LABELS, "".join(map(_line, [("text", "kind", "query"), *labels])))


def answers_of(task: Task) -> dict[str, str]:
    """The first MOST_QUESTIONS questions that have an answer, each with its best-judged passage."""
    best = {query: max(grades, key=lambda name: grades[name]) for query, grades in task.test.qrels.items()}
    known = [(query, name) for query, name in best.items() if task.test.qrels[query][name] > 0]
    return dict(known[:MOST_QUESTIONS])


def vectors_of(evaluation: Evaluation, wanted: set[str]) -> dict[str, np.ndarray]:
    """The stored vectors of the named passages of the first collection."""
    folder = evaluation.embeddings_path("dense", evaluation.job.model, evaluation.tasks[0].test)
    found: dict[str, np.ndarray] = {}
    for ids, vectors in read_shards(open_embeddings(folder)):
        found |= {name: vectors[row] for row, name in enumerate(ids) if name in wanted}
    return found


def _label(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= LONGEST_LABEL else words[: LONGEST_LABEL - 1] + "…"


def _line(fields: Iterable[str]) -> str:
    return "\t".join(fields) + "\n"
