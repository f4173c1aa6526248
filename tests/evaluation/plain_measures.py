"""The plain twin of the measures: written from their definitions, nothing but Python, no library.

A document is relevant from grade `relevant_from` on; nDCG gains the grade itself, discounted by log2(rank + 1).
"""

import math
import struct
from collections.abc import Mapping


def in_order(scored: Mapping[str, float]) -> list[str]:
    """By falling score, as float32; equal ones by falling id."""
    return sorted(scored, key=lambda document: (as_float32(scored[document]), document.encode()), reverse=True)


def as_float32(score: float) -> float:
    return float(struct.unpack("f", struct.pack("f", score))[0])


def plain(measure: str, scored: Mapping[str, float], grades: Mapping[str, int], relevant_from: int = 1) -> float:
    name, _, cut = measure.partition("@")
    found = [grades.get(document, 0) for document in in_order(scored)]
    top = found[: int(cut)] if cut else found
    hits = [grade >= relevant_from for grade in top]
    relevant = sum(grade >= relevant_from for grade in grades.values())
    if name == "nDCG":
        ideal = gained(sorted(grades.values(), reverse=True)[: int(cut) if cut else None])
        return gained(top) / ideal if ideal else 0.0
    if not relevant:
        return 0.0
    if name == "MAP":
        return sum(sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit) / relevant
    if name == "MRR":
        return 1 / (hits.index(True) + 1) if any(hits) else 0.0
    return {"Recall": sum(hits) / relevant, "P": sum(hits) / int(cut or 1), "Success": float(any(hits))}[name]


def gained(grades: list[int]) -> float:
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades) if grade > 0)
