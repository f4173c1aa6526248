"""Seeded shuffling by arithmetic that is written down here, so that no library version can change an order.

Every number gets a 64-bit key; sorting by key is the shuffle. Keys come from SplitMix64 (Steele, Lea, Flood 2014): a
Weyl sequence through a bijection, hence distinct numbers never share a key and the sort has no ties.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def random_keys(numbers: NDArray[np.int64], *seed: int | str) -> NDArray[np.uint64]:
    """A pseudo-random key for each number, a function of (number, seed) alone; `seed` is any list of ints and words."""
    digest = hashlib.blake2b("/".join(map(str, seed)).encode(), digest_size=8).digest()
    start = np.uint64(int.from_bytes(digest, "big"))
    keys = numbers.astype(np.uint64) * _GOLDEN + start
    keys = (keys ^ (keys >> np.uint64(30))) * _FIRST
    keys = (keys ^ (keys >> np.uint64(27))) * _SECOND
    return keys ^ (keys >> np.uint64(31))


def permutation(count: int, *seed: int | str) -> NDArray[np.int64]:
    """0 .. count-1 in a pseudo-random order that is a function of (count, seed) alone."""
    return np.argsort(random_keys(np.arange(count, dtype=np.int64), *seed))
