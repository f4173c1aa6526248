"""Ranked lists: in memory, and as TREC run files.

Order everywhere is trec_eval's: scores as float32, descending; equal scores by descending document id.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from largede.errors import DataError
from largede.retrieval.files import writing


@dataclass(frozen=True)
class Ranking:
    """The documents found for one query, best first; `scores` is float32, one for each id."""

    ids: tuple[str, ...]
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def top(self, depth: int) -> "Ranking":
        return Ranking(self.ids[:depth], self.scores[:depth])

    def scored(self) -> dict[str, float]:
        return dict(zip(self.ids, self.scores.tolist(), strict=True))


Run = dict[str, Ranking]
"""Query id to ranking. A query for which nothing was found may be missing."""


def rank(ids: Sequence[str], scores: Sequence[float] | np.ndarray, depth: int) -> Ranking:
    """The best `depth` documents in trec_eval's order."""
    score_N = np.asarray(scores, dtype=np.float32)
    rows = np.arange(len(ids))
    if depth < len(ids):
        # Sorting names is slow: only documents that can be among the best take part.
        rows = np.flatnonzero(score_N >= np.partition(score_N, -depth)[-depth])
    by_id = np.asarray(sorted(rows.tolist(), key=ids.__getitem__, reverse=True), dtype=np.int64)
    order = by_id[np.argsort(-score_N[by_id], kind="stable")][:depth]
    return Ranking(tuple(ids[i] for i in order), score_N[order])


def write_run(path: Path, run: Run, tag: str) -> None:
    """Write `query Q0 document rank score tag` lines, whole or not at all. Scores read back to the same float32."""
    with writing(path) as stream:
        for query, ranking in run.items():
            pairs = enumerate(zip(ranking.ids, ranking.scores.tolist(), strict=True), start=1)
            lines = (f"{query} Q0 {document} {place} {score:.9g} {tag}\n" for place, (document, score) in pairs)
            stream.write("".join(lines).encode())


def read_run(path: Path, depth: int | None = None) -> Run:
    """Read a TREC run file; lists come out in trec_eval's order whatever the file's.

    Raises DataError naming file and line: missing, not six columns, a score that is no finite number, a document
    twice in one list.
    """
    found: dict[str, dict[str, float]] = {}
    for number, line in enumerate(_lines(path), start=1):
        query, document, score = _columns(path, number, line)
        if document in found.setdefault(query, {}):
            raise _bad_line(path, number, f"document {document!r} again for query {query!r}", "each document once")
        found[query][document] = score
    return {query: rank(list(scored), list(scored.values()), depth or len(scored)) for query, scored in found.items()}


def _lines(path: Path) -> Iterable[str]:
    if not path.is_file():
        raise DataError(f"there is no run file {path}", expected="a TREC run file", mend="run the search again")
    with path.open(encoding="utf-8", errors="replace") as stream:
        yield from stream


def _columns(path: Path, number: int, line: str) -> tuple[str, str, float]:
    fields = line.split()
    if len(fields) != 6:
        raise _bad_line(path, number, f"{len(fields)} columns", "query Q0 document rank score tag")
    try:
        score = float(fields[4])
    except ValueError:
        score = float("nan")
    if not np.isfinite(score):
        raise _bad_line(path, number, f"the score {fields[4]!r}", "a finite number")
    # Interned, a document id that is in a thousand lists is held once.
    return sys.intern(fields[0]), sys.intern(fields[2]), score


def _bad_line(path: Path, number: int, given: str, expected: str) -> DataError:
    return DataError(f"{path}, line {number}: {given}", expected=expected, mend="remove the file and search again")
