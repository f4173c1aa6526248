"""Made batches for measuring: token ids at random, lengths all at the limit or spread as those of real texts are."""

from dataclasses import dataclass

import numpy as np

from largede.streams.chunks import TokenRows
from largede.streams.tokenise import RankBatch

SPREAD = 0.6
"""Deviation of the logarithm of a length: half of the texts lie between two thirds and one and a half of the median."""
SHORTEST = 2
FIRST_ORDINARY_TOKEN = 3


@dataclass(frozen=True)
class Lengths:
    """Tokens per text: log-normal around `mean`, cut at `limit`; where the two are equal, every text is that long."""

    mean: int
    limit: int

    def draw(self, generator: np.random.Generator, rows: int) -> np.ndarray:
        if self.mean >= self.limit:
            return np.full(rows, self.limit)
        drawn = generator.lognormal(np.log(self.mean) - SPREAD**2 / 2, SPREAD, rows)
        return drawn.astype(np.int64).clip(SHORTEST, self.limit)


def made_batch(
    rows: int, queries: Lengths, passages: Lengths, *, vocabulary: int, hard_negatives: int = 0, seed: int = 0
) -> RankBatch:
    """A batch of one rank in which no text occurs twice, every query with the same number of hard negatives."""
    generator = np.random.default_rng(seed)
    negatives = rows * hard_negatives

    def texts(count: int, lengths: Lengths) -> TokenRows:
        offsets = np.concatenate([[0], np.cumsum(lengths.draw(generator, count))])
        tokens = generator.integers(FIRST_ORDINARY_TOKEN, vocabulary, int(offsets[-1]), dtype=np.int32)
        return TokenRows(tokens, offsets)

    return RankBatch(
        step=0,
        queries=texts(rows, queries),
        passages=texts(rows + negatives, passages),
        query_keys=np.arange(3 * rows, dtype=np.int64).reshape(rows, 3),
        answer_keys=np.empty((rows, 0), dtype=np.int64),
        negative_keys=np.arange(3 * negatives, dtype=np.int64).reshape(negatives, 3) + 3 * rows,
        sample_names=("made for measuring",) * rows,
        cut_texts=0,
    )
