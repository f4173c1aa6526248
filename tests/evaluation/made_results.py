"""Results of collections that do not exist: qrels and runs by seed, small corpora in memory's place on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from beir_folder import write_jsonl

from largede.evaluation.measures.metrics import MEASURES, per_query
from largede.evaluation.report.examples import Example, Searched, choose_examples
from largede.evaluation.results.collect import Measured, System, collect_results
from largede.evaluation.results.lengths import retrieved_lengths
from largede.evaluation.weight import FusionWeight
from largede.retrieval.corpus import Corpus, Qrels, open_corpus
from largede.retrieval.runs import Run, rank

SYSTEMS = (System("dense", "dense", 110_000_000), System("bm25", "BM25"), System("fused", "fused"))
SKILL = {"dense": 1.1, "bm25": 0.9, "fused": 1.5}
"""How much higher the score of a relevant document is, in deviations of the noise."""


@dataclass(frozen=True)
class Made:
    """A collection with its runs, and how it is called."""

    name: str
    corpus: Corpus
    queries: dict[str, str]
    qrels: Qrels
    runs: dict[str, Run]
    measures: tuple[str, ...] = MEASURES
    group: str | None = None
    split: str = "test"

    def measured(self, **other: Any) -> Measured:
        values = {key: per_query(run, self.qrels, self.measures) for key, run in self.runs.items()}
        lengths = retrieved_lengths(self.corpus, self.runs, self.qrels)
        curve = tuple((step / 20, 0.3 + 0.1 * step / 20 - 0.1 * (step / 20) ** 2) for step in range(21))
        given = {
            "fingerprint": f"of {self.name}",
            "documents": len(self.corpus),
            "weight": FusionWeight(0.5, "80 queries", curve),
        }
        return Measured(
            name=self.name, split=self.split, values=values, measures=self.measures, group=self.group,
            lengths=lengths, **{**given, **other},
        )  # fmt: skip

    def searched(self) -> Searched:
        return Searched(self.name, self.queries, self.corpus, self.qrels, self.runs)


def make(
    folder: Path,
    name: str,
    seed: int = 0,
    queries: int = 40,
    skill: dict[str, float] = SKILL,
    documents: int = 200,
    title: str = "About {}",
    **other: Any,
) -> Made:
    """Three relevant documents to each query, found the sooner the higher a system's skill."""
    rng = np.random.default_rng(seed)
    path = folder / f"corpus-{seed}.jsonl"
    long = rng.integers(3, 120, documents)
    rows = [
        {"_id": f"d{i}", "title": title.format(i), "text": " ".join([f"word{i}"] * int(long[i]))}
        for i in range(documents)
    ]
    write_jsonl(path, rows)
    corpus = open_corpus(path)
    asked = {f"q{i}": f"what is word{i}?" for i in range(queries)}
    qrels = {query: {f"d{d}": 1 for d in rng.choice(documents, 3, replace=False)} for query in asked}
    runs = {key: _run(corpus, qrels, rng, amount) for key, amount in skill.items()}
    return Made(name, corpus, asked, qrels, runs, **other)


def _run(corpus: Corpus, qrels: Qrels, rng: np.random.Generator, skill: float) -> Run:
    run = {}
    for query, grades in qrels.items():
        scores = rng.normal(size=len(corpus)) + skill * 2 * np.array([id_ in grades for id_ in corpus.ids])
        run[query] = rank(corpus.ids, scores, 100)
    return run


def results_of(
    made: list[Made], systems: tuple[System, ...] = SYSTEMS, title: str = "Made", **other: Any
) -> tuple[dict[str, Any], list[Example]]:
    results = collect_results(title, systems, [one.measured() for one in made], 0, **other)
    results |= {"settings": {"model": "made"}, "about": {"command": "largede evaluate"}}
    return results, choose_examples(results, [one.searched() for one in made], 0)
