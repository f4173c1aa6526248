"""How long the passages are that a system finds, beside the corpus and the relevant ones (figure 5 of GTR's paper)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from largede.retrieval.corpus import Corpus, Qrels
from largede.retrieval.runs import Run

DEPTH = 10
"""How many of each list are looked at."""

SAMPLE = 5_000
"""At most so many documents of each kind are read."""

EDGES = (0, 1, *(round(2 ** (k / 2)) for k in range(2, 27)))
"""Lengths in words: half octaves up to 8,192; the last bin holds all that is longer."""


def retrieved_lengths(corpus: Corpus, runs: Mapping[str, Run], qrels: Qrels, seed: int = 0) -> dict[str, Any]:
    """Distributions of passage lengths in words (title and text): corpus, relevant, and the first ten of each run.

    A passage counts as often as it is found. Where there are more than SAMPLE of a kind, that many are drawn by seed;
    no other document is read. A kind without any is left out.
    """
    kinds = {"corpus": corpus.ids, "relevant": _relevant(qrels)}
    found = {key: [id_ for query in sorted(run) for id_ in run[query].ids[:DEPTH]] for key, run in runs.items()}
    drawn = {name: _draw(ids, seed) for name, ids in kinds.items()}
    drawn_found = {key: _draw(ids, seed) for key, ids in found.items()}
    wanted = {id_ for ids in [*drawn.values(), *drawn_found.values()] for id_ in ids}
    words = {id_: len(document.contents.split()) for id_, document in corpus.lookup(wanted).items()}
    return {
        "unit": "words",
        "depth": DEPTH,
        "edges": list(EDGES),
        **{name: _spread(ids, words) for name, ids in drawn.items() if ids},
        "retrieved": {key: _spread(ids, words) for key, ids in drawn_found.items() if ids},
    }


def _relevant(qrels: Qrels) -> list[str]:
    return [id_ for grades in qrels.values() for id_, grade in grades.items() if grade > 0]


def _draw(ids: Sequence[str], seed: int) -> list[str]:
    if len(ids) <= SAMPLE:
        return list(ids)
    rows = np.random.default_rng(seed).choice(len(ids), SAMPLE, replace=False)
    return [ids[row] for row in rows]


def _spread(ids: Sequence[str], words: Mapping[str, int]) -> dict[str, Any]:
    lengths = np.array([words[id_] for id_ in ids])
    counts, _ = np.histogram(np.minimum(lengths, EDGES[-1]), bins=EDGES)
    low, median, high = np.percentile(lengths, [10, 50, 90])
    return {
        "passages": len(ids),
        "mean": float(lengths.mean()),
        "median": float(median),
        "low": float(low),
        "high": float(high),
        "shares": [float(count) / len(ids) for count in counts],
    }
