"""From the ranked lists of one pair to its negatives.

A candidate is a passage within the window of ranks of a list. It is left out for the first of these reasons that holds:

    known positive              it answers the query in some pair, or the pair names it among its other positives
    text of a positive          its words are those of a known positive
    text of the query           its words are the query's
    group of the pair           it belongs to a pair of the same group
    no text                     nothing could be trained on
    too close to the positive   its dense score is above the positive's less the margin, or above the share of it
    above the positive twice    both lists put it above the positive

What is left is drawn, or taken from the top, list by list in turn.

Shapes: C candidates of one list.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from largede.retrieval.mine.lists import WindowLists
from largede.retrieval.mine.pool import NO_KEY, Pool, PoolPair, Tables, normalised
from largede.retrieval.mine.settings import List, MineSettings
from largede.retrieval.runs import Ranking, Run
from largede.streams.pair import Pair
from largede.text import text_key

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

REASONS = (
    "known positive",
    "text of a positive",
    "text of the query",
    "group of the pair",
    "no text",
    "too close to the positive",
    "above the positive twice",
)

_NOTHING = Ranking((), np.empty(0, dtype=np.float32))


@dataclass
class Tally:
    """What became of the candidates; `scores`: how many positives and negatives have a dense score, and their sum."""

    pairs: int = 0
    candidates: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    taken_from: Counter[str] = field(default_factory=Counter)
    pairs_by_negatives: Counter[int] = field(default_factory=Counter)
    scores: dict[str, list[float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        return {
            "pairs": self.pairs,
            "candidates": self.candidates,
            "left_out": dict(self.left_out),
            "taken_from": dict(self.taken_from),
            "pairs_by_negatives": {str(count): pairs for count, pairs in sorted(self.pairs_by_negatives.items())},
            "scores": self.scores,
        }

    def add(self, report: dict[str, Any]) -> None:
        """Another tally, as `to_dict` gives it."""
        self.pairs += report["pairs"]
        self.candidates += report["candidates"]
        for name in ("left_out", "taken_from"):
            getattr(self, name).update(report[name])
        self.pairs_by_negatives.update({int(count): pairs for count, pairs in report["pairs_by_negatives"].items()})
        for what, (count, total) in report["scores"].items():
            self.add_scores(what, count, total)

    def add_scores(self, what: str, count: int, total: float) -> None:
        before = self.scores.get(what, [0, 0.0])
        self.scores[what] = [before[0] + count, before[1] + total]

    def mean_scores(self) -> dict[str, float]:
        return {what: total / count for what, (count, total) in self.scores.items() if count}


class Chooser:
    """Chooses for the pairs of one window."""

    def __init__(self, lists: WindowLists, settings: MineSettings) -> None:
        self.settings = settings
        self.pool: Pool = lists.pool
        self.tables: Tables = lists.pool.tables
        self.runs: dict[List, Run] = {name: lists.read(name) for name in settings.lists}
        self.scored = lists.scored()
        self.tally = Tally()

    def negatives(self, found: PoolPair) -> list[int]:
        """The rows of the pair's negatives, each list's in its order; fewer than asked for where there are no more."""
        first, last = self.settings.ranks
        in_window = {name: self._rows(run, found)[first - 1 : last] for name, run in self.runs.items()}
        scores = self._dense_scores(found)
        left = {name: row_C[self._passes(found, row_C, scores)] for name, row_C in in_window.items()}
        chosen = self._in_turn(found, {name: self._ordered(found, name, row_C) for name, row_C in left.items()})
        self._count(found, chosen, scores)
        return chosen

    def _rows(self, run: Run, found: PoolPair) -> Rows:
        row_of, ids = self.pool.row_of, run.get(found.query_id, _NOTHING).ids
        return np.fromiter((row_of[id_] for id_ in ids), dtype=np.int64, count=len(ids))

    def _dense_scores(self, found: PoolPair) -> dict[int, float]:
        """Of all that has one, by row."""
        row_of = self.pool.row_of
        scores: dict[int, float] = {}
        for run in (self.runs.get("dense", {}), self.scored):
            ranking = run.get(found.query_id, _NOTHING)
            scores.update(zip((row_of[id_] for id_ in ranking.ids), ranking.scores.tolist(), strict=True))
        return scores

    def _passes(self, found: PoolPair, row_C: Rows, scores: dict[int, float]) -> Mask:
        """Which candidates are left; the others are counted."""
        left_C = np.ones(len(row_C), dtype=np.bool_)
        for reason, wrong_C in self._objections(found, row_C, scores):
            self.tally.left_out[reason] += int(np.count_nonzero(left_C & wrong_C))
            left_C &= ~wrong_C
        self.tally.candidates += len(row_C)
        return left_C

    def _objections(self, found: PoolPair, row_C: Rows, scores: dict[int, float]) -> Iterator[tuple[str, Mask]]:
        """In the order of REASONS."""
        tables, pair = self.tables, found.pair
        others = np.array([text_key(name) for name in pair.other_positives], dtype=np.int64)
        answers = np.concatenate([tables.answers.rows_of(text_key(pair.query)), self._named(pair), [found.row]])
        normal_C = tables.normal[row_C]
        is_named_C = np.isin(tables.id[row_C], others) | np.isin(tables.text[row_C], others)
        yield REASONS[0], np.isin(row_C, answers) | is_named_C
        yield REASONS[1], np.isin(normal_C, tables.normal[answers]) & (normal_C != NO_KEY)
        yield REASONS[2], normal_C == text_key(normalised(pair.query))
        looks_at_group = bool(pair.group) and not self.settings.same_group
        yield REASONS[3], np.isin(row_C, tables.groups.rows_of(text_key(pair.group)) if looks_at_group else row_C[:0])
        yield REASONS[4], normal_C == NO_KEY
        if self.settings.compares_scores:
            score_C = np.array([scores[row] for row in row_C.tolist()], dtype=np.float64)
            yield REASONS[5], score_C > self._highest(scores[found.row])
            if self.settings.agreement:
                yield REASONS[6], (score_C > scores[found.row]) & self._above_in_bm25(found, row_C)

    def _named(self, pair: Pair) -> Rows:
        """The other positives that a pair names by an id of the corpus."""
        rows = (self.pool.row_of.get(name) for name in pair.other_positives)
        known = np.array([row for row in rows if row is not None], dtype=np.int64)
        return known[self.tables.id[known] != NO_KEY]

    def _highest(self, positive: float) -> float:
        """The highest dense score that a negative may have. A share of a score below zero would lie above it."""
        settings = self.settings
        by_margin = positive - settings.margin if settings.margin is not None else np.inf
        by_share = min(positive, positive * settings.max_share) if settings.max_share is not None else np.inf
        return float(min(by_margin, by_share))

    def _above_in_bm25(self, found: PoolPair, row_C: Rows) -> Mask:
        """Whether BM25 ranks a candidate above the positive; what its list lacks is below all that is in it."""
        ranked = self._rows(self.runs["bm25"], found)
        place = np.flatnonzero(ranked == found.row)
        return np.isin(row_C, ranked[: place[0]] if len(place) else ranked)

    def _ordered(self, found: PoolPair, name: List, row_C: Rows) -> Rows:
        """The order in which candidates of one list are taken: a function of the seed, the list and the pair alone."""
        if self.settings.pick == "top":
            return row_C
        key = text_key(f"{name}\n{found.pair.query}\n{self.pool.corpus.ids[found.row]}")
        generator = np.random.Generator(np.random.Philox(key=[self.settings.seed, key]))
        return generator.permutation(row_C)

    def _in_turn(self, found: PoolPair, left: dict[List, Rows]) -> list[int]:
        """Take from the list that lags most behind its share, until there are enough or none is left."""
        waiting = {name: iter(rows.tolist()) for name, rows in left.items()}
        taken = dict.fromkeys(waiting, 0)
        chosen: list[int] = []
        texts: set[int] = set()
        weights = self.settings.weights
        while waiting and len(chosen) < self.settings.negatives:
            name = min(waiting, key=lambda name: (taken[name] + 1) / weights[name])
            row = next(waiting[name], None)
            if row is None:
                del waiting[name]
            elif (normal := int(self.tables.normal[row])) in texts:
                self.tally.left_out["text of another negative"] += row not in chosen
            else:
                chosen.append(row)
                texts.add(normal)
                taken[name] += 1
                self.tally.taken_from[name] += 1
        return chosen

    def _count(self, found: PoolPair, chosen: list[int], scores: dict[int, float]) -> None:
        self.tally.pairs += 1
        self.tally.pairs_by_negatives[len(chosen)] += 1
        known = [scores[row] for row in chosen if row in scores]
        if found.row in scores:
            self.tally.add_scores("positives", 1, scores[found.row])
        self.tally.add_scores("negatives", len(known), sum(known))
