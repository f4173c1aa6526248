"""Which cases there are: ten factors, the combinations of their levels that exist, and an array covering all pairs."""

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from largede.config.recipe import Layout, Similarity


@dataclass(frozen=True)
class Case:
    """One way of computing the gradient of one contrastive batch.

    `budget`: `divides`: every chunk of every rank is full (on ragged ranks: of the smaller ones); `does not`: rows of
    mixed lengths, so that chunks differ in shape and ranks in the number of chunks.
    `rows`: `even`: all ranks hold the same number of rows and every query `hard_negatives` of them; `ragged`: ranks
    hold different numbers of rows, a query has 0 to `hard_negatives` of them, the first quarter of the queries none.
    """

    ranks: int
    layout: Layout
    zero: int
    similarity: Similarity
    budget: str
    rows: str
    hard_negatives: int
    dropout: bool
    checkpointing: bool
    reduction: str

    @property
    def twin_key(self) -> tuple[Any, ...]:
        """What the twin depends on; the rest of the case must not change the gradient."""
        return (
            self.ranks,
            self.layout,
            self.similarity,
            self.budget,
            self.rows,
            self.hard_negatives,
            self.dropout,
        )

    @property
    def key(self) -> str:
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())


LEVELS: dict[str, tuple[Any, ...]] = {
    "ranks": (1, 2, 3, 4),
    "layout": ("sde", "ade", "ade-ste", "ade-fte", "ade-spl"),
    "zero": (0, 1, 2, 3),
    "similarity": ("cosine", "dot"),
    "budget": ("divides", "does not"),
    "rows": ("even", "ragged"),
    "hard_negatives": (0, 1, 7),
    "dropout": (False, True),
    "checkpointing": (False, True),
    "reduction": ("per_chunk", "coalesced"),
}
assert tuple(LEVELS) == tuple(f.name for f in fields(Case))

ABSENT = {
    "rows=ragged on ranks=1": "one rank has no other to hold a different number of rows",
    "reduction=coalesced at zero=0": "`engine.coalesce_grad_reduction()` refuses ZeRO-0",
}
"""What does not exist, and why; the table prints it."""


def exists(levels: dict[str, Any]) -> bool:
    """False for a combination (of all factors or some) that cannot be run."""
    is_lone_ragged = levels.get("rows") == "ragged" and levels.get("ranks") == 1
    is_coalesced_without_zero = levels.get("reduction") == "coalesced" and levels.get("zero") == 0
    return not (is_lone_ragged or is_coalesced_without_zero)


def full_product() -> list[Case]:
    """Every case that exists, in an order that lets neighbours share an engine and a twin."""
    combinations = (dict(zip(LEVELS, values, strict=True)) for values in itertools.product(*LEVELS.values()))
    return [Case(**levels) for levels in combinations if exists(levels)]


Pair = frozenset[tuple[str, Any]]


def pairs_of(case: Case) -> set[Pair]:
    return {frozenset(pair) for pair in itertools.combinations(asdict(case).items(), 2)}


def pairs_that_exist() -> set[Pair]:
    """Every two levels of two factors that some case has together."""
    return {
        frozenset([(a, x), (b, y)])
        for a, b in itertools.combinations(LEVELS, 2)
        for x in LEVELS[a]
        for y in LEVELS[b]
        if exists({a: x, b: y})
    }


def covering_array(cases: Iterable[Case] | None = None) -> list[Case]:
    """A few cases that have every existing pair of levels: greedily the case with most pairs still missing.

    Deterministic: among equals the first of `cases` (the full product unless given).
    """
    candidates = [(case, pairs_of(case)) for case in (full_product() if cases is None else cases)]
    missing = set().union(*(pairs for _, pairs in candidates))
    chosen = []
    while missing:
        case, pairs = max(candidates, key=lambda candidate: len(candidate[1] & missing))
        chosen.append(case)
        missing -= pairs
        candidates = [(c, p) for c, p in candidates if p & missing]
    return chosen
