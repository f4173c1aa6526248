"""A few negatives out of many, the same ones whenever the same query is read."""

import hashlib
import heapq
from collections.abc import Iterable


def draw(query_id: str, passage_ids: Iterable[str], count: int, seed: int) -> list[str]:
    """At most `count` of the different ids, at random, in an order that their order has no part in."""

    def lot(passage_id: str) -> tuple[bytes, str]:
        name = f"{seed}\t{query_id}\t{passage_id}".encode()
        return hashlib.blake2b(name, digest_size=8).digest(), passage_id

    return heapq.nsmallest(count, set(passage_ids), key=lot)
