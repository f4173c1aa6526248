"""Ranked lists: in memory, and as TREC run files.

Order everywhere is trec_eval's: scores as float32, descending; equal scores by descending document id.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from largede.errors import DataError
from largede.files import writing


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
    rows = rows[np.argsort(-score_N[rows], kind="stable")]
    settle_ties(score_N[rows], rows, ids)
    rows = rows[:depth]
    return Ranking(tuple([ids[row] for row in rows.tolist()]), score_N[rows])


def settle_ties(score_C: np.ndarray, row_C: np.ndarray, ids: Sequence[str]) -> None:
    """Order rows of equal scores by descending document id, in place; `score_C` descends. Names are read at ties."""
    edges = np.flatnonzero(score_C[1:] != score_C[:-1]) + 1
    firsts, lasts = np.concatenate([[0], edges]), np.concatenate([edges, [len(score_C)]])
    several = lasts - firsts > 1
    for first, last in zip(firsts[several].tolist(), lasts[several].tolist(), strict=True):
        row_C[first:last] = sorted(row_C[first:last].tolist(), key=ids.__getitem__, reverse=True)


def write_run(path: Path, run: Run, tag: str) -> None:
    """Write `query Q0 document rank score tag` lines, whole or not at all. Scores read back to the same float32."""
    with writing(path) as stream:
        for query, ranking in run.items():
            pairs = enumerate(zip(ranking.ids, ranking.scores.tolist(), strict=True), start=1)
            lines = (f"{query} Q0 {document} {place} {score:.9g} {tag}\n" for place, (document, score) in pairs)
            stream.write("".join(lines).encode())


def read_run(path: Path) -> Run:
    """Read a TREC run file; lists come out in trec_eval's order whatever the file's.

    As trec_eval does, it passes over blank lines, lines that begin with # and whatever follows the sixth column.
    Raises DataError: missing, a line of fewer columns, a score that is no finite number, a document twice in one
    list.
    """
    found: dict[str, tuple[list[str], list[float]]] = {}
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if "\0" in line:
            raise _bad_run(f"{path}, line {number}: {line.strip()[:80]!r}", "text without null bytes")
        try:
            query, _, document, _, score, _ = fields[:6]
            ids, scores = found.setdefault(query, ([], []))
            scores.append(float(score))
        except ValueError:
            raise _bad_run(
                f"{path}, line {number}: {line.strip()[:80]!r}", "query Q0 document rank score tag"
            ) from None
        # Interned, a document id that is in a thousand lists is held once.
        ids.append(sys.intern(document))
    return {query: _checked(path, query, ids, scores) for query, (ids, scores) in found.items()}


def _checked(path: Path, query: str, ids: list[str], scores: list[float]) -> Ranking:
    score_N = np.array(scores, dtype=np.float32)
    if not np.isfinite(score_N).all():
        raise _bad_run(f"{path}: a score of query {query!r} is not finite", "finite scores")
    if len(set(ids)) < len(ids):
        twice = next(id_ for place, id_ in enumerate(ids) if id_ in ids[:place])
        raise _bad_run(f"{path}: document {twice!r} is twice in the list of query {query!r}", "each document once")
    if (score_N[1:] < score_N[:-1]).all():
        return Ranking(tuple(ids), score_N)
    return rank(ids, score_N, len(ids))


def _lines(path: Path) -> Iterable[str]:
    if not path.is_file():
        raise _bad_run(f"there is no run file {path}", "a TREC run file")
    with path.open(encoding="utf-8", errors="replace") as stream:
        yield from stream


def _bad_run(given: str, expected: str) -> DataError:
    return DataError(given, expected=expected, mend="correct the file, or remove it and search again")
