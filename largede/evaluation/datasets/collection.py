"""What there is to evaluate on: a folder in BEIR format, and how its paper says to use it."""

from dataclasses import dataclass
from pathlib import Path

BEIR_MEASURES = ("nDCG@10", "Recall@100", "MRR@10")
PASSAGE_MEASURES = ("MRR@10", "nDCG@10", "Recall@1000", "Recall@100")
"""Of MS MARCO's dev split: the leaderboard's measure first."""
TREC_MEASURES = ("nDCG@10", "MRR@10", "Recall@1000", "Recall@100")
ANSWER_CUTS = (1, 5, 20, 50, 100)
ANSWER_MEASURES = tuple(f"Answer@{cut}" for cut in ANSWER_CUTS)
SENTENCE_MEASURES = ("P@1", "MRR@1000")
"""MultiReQA's mean reciprocal rank has no cut; at the depth that is searched, 1,000, this is the same."""


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """How a paper evaluates on a collection; the defaults are BEIR's.

    `split` is reported, `dev_split` may be tuned on (None: nothing may); the first of `measures` is the one of
    overviews; `relevant_from` is the lowest grade that binary measures count as relevant. Collections of one `group`
    are reported as the mean of them. With `has_answers` the lines of queries.jsonl carry
    {"metadata": {"answers": [...]}} and `measures` are of answers: no qrels are needed.
    """

    split: str = "test"
    dev_split: str | None = None
    max_query_tokens: int = 64
    max_passage_tokens: int = 512
    measures: tuple[str, ...] = BEIR_MEASURES
    relevant_from: int = 1
    group: str | None = None
    has_answers: bool = False


@dataclass(frozen=True)
class Collection(Conventions):
    """One thing to evaluate on. `folder` is in BEIR format: corpus.jsonl, queries.jsonl and qrels/{split}.tsv."""

    name: str
    folder: Path
