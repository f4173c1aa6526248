"""A deterministic encoder for tests: a bag of hashed word beginnings, no weights, no torch."""

import hashlib
from collections.abc import Sequence

import numpy as np

from largede.retrieval.encoder import Model, Side


class HashEncoder:
    """Every word adds a random direction drawn from the hash of its first five letters; vectors have length 1."""

    similarity = "cosine"

    def __init__(self, dimension: int = 64) -> None:
        self.dimension = dimension
        self._directions: dict[str, np.ndarray] = {}

    def embed(self, texts: Sequence[str], side: Side, max_tokens: int) -> np.ndarray:
        return np.stack([self._vector(text.lower().split()[:max_tokens]) for text in texts])

    def _vector(self, words: list[str]) -> np.ndarray:
        total = np.sum(
            [self._direction(word.strip(".,?!()")[:5]) for word in words] or [np.ones(self.dimension)], axis=0
        )
        return (total / np.linalg.norm(total)).astype(np.float32)

    def _direction(self, word: str) -> np.ndarray:
        if word not in self._directions:
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
            self._directions[word] = np.random.default_rng(seed).standard_normal(self.dimension)
        return self._directions[word]


def hash_model(name: str = "hash", dimension: int = 64) -> Model:
    encoder = HashEncoder(dimension)
    return Model(name, f"{name}-{dimension}", lambda: encoder)
