"""The contrastive batch of a case: made-up rows whose number and lengths make the chunks what the case asks for."""

import numpy as np
from batches_for_tests import MadeBatch

from exactness.factors import Case
from largede.streams.chunks import TokenRows

VOCABULARY = 48
QUERY_TOKENS = 12
PASSAGE_TOKENS = 6
"""Half of a query's, so that seven hard negatives for each query do not make the matrix take twice as long."""

EVEN_QUERIES = 24
"""Divided by 1, 2, 3 and 4 ranks it leaves an even number, which two chunks halve."""
RAGGED_QUERIES = 25
"""One more than a multiple of 2, 3 and 4: one rank holds a row more than the others."""


class CaseBatch(MadeBatch):
    """A global batch with right answers among the negatives, to be masked: repeated passages and queries, known ones.

    `seed` gives another batch of the same shape.
    """

    def __init__(self, case: Case, seed: int = 0) -> None:
        is_ragged = case.rows == "ragged"
        pairs = RAGGED_QUERIES if is_ragged else EVEN_QUERIES
        generator = np.random.default_rng([seed, case.hard_negatives, is_ragged, case.budget == "divides"])
        self.negative_counts = np.full(pairs, case.hard_negatives)
        if is_ragged:
            self.negative_counts = generator.integers(0, case.hard_negatives + 1, pairs)
            self.negative_counts[: pairs // 4] = 0
            self.negative_counts[-1] = case.hard_negatives
        has_one_length = case.budget == "divides"
        self.queries = rows_of(generator, pairs, QUERY_TOKENS, has_one_length)
        self.positives = rows_of(generator, pairs, PASSAGE_TOKENS, has_one_length)
        self.negatives = rows_of(generator, int(self.negative_counts.sum()), PASSAGE_TOKENS, has_one_length)
        self.mark_right_answers(pairs)


def rows_of(generator: np.random.Generator, rows: int, longest: int, has_one_length: bool) -> TokenRows:
    lengths = generator.integers(longest if has_one_length else 2, longest + 1, rows)
    return TokenRows.of([generator.integers(3, VOCABULARY, length).tolist() for length in lengths])


def chunk_tokens(case: Case) -> int:
    """The budget: half of the smaller rank's queries to a chunk, or somewhat less than two fifths of their room."""
    queries = EVEN_QUERIES // case.ranks
    if case.budget == "divides":
        return queries // 2 * QUERY_TOKENS
    return max(QUERY_TOKENS, int(0.37 * queries * QUERY_TOKENS))
