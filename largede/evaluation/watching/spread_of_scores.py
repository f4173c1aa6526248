"""How the scores of passages that answer and of passages that do not are spread: what a threshold would have to cut."""

import numpy as np

from largede.evaluation.evaluate import Evaluation
from largede.evaluation.task import Task
from largede.retrieval.runs import read_run

BINS = 40


def spread_of_scores(evaluation: Evaluation, task: Task) -> dict[str, list[float]]:
    """Counts over BINS equal bins, and `edges`: `relevant` passages that were found, each query's best `other`."""
    relevant: list[float] = []
    other: list[float] = []
    for query, ranking in read_run(evaluation.run_path(task.test, "dense")).items():
        grades = task.test.qrels.get(query, {})
        scored = ranking.scored()
        relevant += [score for name, score in scored.items() if grades.get(name, 0) > 0]
        other += [score for name, score in scored.items() if grades.get(name, 0) <= 0][:1]
    edges = np.histogram_bin_edges(relevant + other or [0.0], BINS)
    return {
        "edges": [round(float(edge), 6) for edge in edges],
        "relevant": np.histogram(relevant, edges)[0].tolist(),
        "other": np.histogram(other, edges)[0].tolist(),
    }
