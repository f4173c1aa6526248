"""Exact search of one shard after the other.

Products of matrices, and FAISS on a GPU, are fast, but their last bits depend on how many queries and documents they
see at once. So they only say what cannot be among the best K: with `slack` the most that a rough score is off, a
document more than twice the slack below the K-th best rough score so far is out. Every other one is scored by the
kernel, and those scores and trec_eval's order of ties alone decide: the result is the same however the corpus is split
and the queries are batched.

On a CPU no candidates are asked of FAISS: a product of matrices is compared with the line, later shards begin with the
line of earlier ones, and however many documents tie, none is missed.

Shapes: Q queries, B of them at a time, N documents of a shard, P pairs of query and document, C candidates, K documents
of a list, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from largede.retrieval.runs import Run, rank
from largede.retrieval.search.devices import Finder, float32_rounding, gpus_of, open_finder, threads_here
from largede.retrieval.search.kernel import score_pairs, score_rows
from largede.retrieval.search.lists import NONE, TopLists
from largede.retrieval.search.pairs import Pairs
from largede.retrieval.search.products import rough_scores
from largede.retrieval.search.storage import rounded
from largede.retrieval.search_settings import SearchSettings

QUERIES_AT_ONCE = 1024
# Scores of a product of matrices, and pairs waiting for the kernel, that are in memory at a time.
_SCORES_AT_ONCE = 2**22
_PAIRS_AT_ONCE = 2**22
_SMALLEST_BLOCK = 2048


@dataclass(frozen=True)
class ShardOfVectors:
    """Float32 vectors with their names; the first row's number in the whole corpus is `first_row`."""

    ids: Sequence[str]
    vector_ND: np.ndarray
    first_row: int

    @cached_property
    def longest(self) -> float:
        """The largest norm."""
        blocks = (self.vector_ND[first : first + 8192] for first in range(0, len(self.vector_ND), 8192))
        squares = [np.einsum("nd,nd->n", block, block, dtype=np.float64).max() for block in blocks]
        return float(np.sqrt(max(squares)))

    @cached_property
    def id_place_N(self) -> np.ndarray:
        """The place of each row when ids ascend."""
        place_N = np.empty(len(self.ids), dtype=np.int64)
        place_N[sorted(range(len(self.ids)), key=self.ids.__getitem__)] = np.arange(len(self.ids))
        return place_N


class ExactSearch:
    """Lists that grow shard by shard, from `lists` on; one longer than `depth`, as a query's own may have to go."""

    def __init__(
        self,
        query_ids: Sequence[str],
        query_QD: np.ndarray,
        depth: int,
        settings: SearchSettings,
        lists: TopLists | None = None,
    ) -> None:
        self.settings = settings
        self.gpus = gpus_of(settings)
        self.query_ids = query_ids
        self.query_QD = query_QD
        self.depth = depth
        self.lists = lists or TopLists.empty(len(query_ids), depth + 1)

    def add(self, shard: ShardOfVectors, ids: Sequence[str]) -> None:
        """Search one shard more. `ids` names all rows up to this shard's last."""
        vector_ND = rounded(np.ascontiguousarray(shard.vector_ND, dtype=np.float32), self.settings.kind)
        shard = replace(shard, vector_ND=vector_ND)
        half = self.settings.kind == "flat-fp16"
        finder = open_finder(vector_ND, self.lists.depth, self.gpus, half=half) if self.gpus else None
        search_shard(shard, finder, self.query_QD, self.lists, ids)

    def run(self, ids: Sequence[str]) -> Run:
        return run_of(self.lists, self.query_ids, ids, self.depth)


def run_of(lists: TopLists, query_ids: Sequence[str], ids: Sequence[str], depth: int) -> Run:
    """The lists by query, without the document that has the query's own id, cut to `depth`."""
    place = {query: number for number, query in enumerate(query_ids)}
    own_row_Q = np.full(len(query_ids), NONE, np.int32)
    for row, id_ in enumerate(ids):
        if id_ in place:
            own_row_Q[place[id_]] = row
    return lists.without(own_row_Q).run(query_ids, ids, depth)


def search_shard(
    shard: ShardOfVectors, finder: Finder | None, query_QD: np.ndarray, lists: TopLists, ids: Sequence[str]
) -> None:
    """Put the best documents of this shard among `lists`. `ids` names all rows up to this shard's last.

    Without a finder all documents are scored roughly here; with one (FAISS on GPUs) only where its answer is short.
    """
    for first in range(0, len(query_QD), QUERIES_AT_ONCE):
        batch = slice(first, first + QUERIES_AT_ONCE)
        query_BD = np.ascontiguousarray(query_QD[batch], dtype=np.float32)
        if finder is None:
            _scan(shard, query_BD, lists.part(batch), ids)
        else:
            _search_found(shard, finder, query_BD, lists.part(batch), ids)


def slack_of(shard: ShardOfVectors, query_BD: np.ndarray, rounding: float) -> np.ndarray:
    """The most that the rough scores of each query may be off. The last term: products too small for float32."""
    length_B = np.sqrt(np.einsum("bd,bd->b", query_BD, query_BD, dtype=np.float64))
    return rounding * length_B * shard.longest + query_BD.shape[1] * 2.0**-126


def _scan(shard: ShardOfVectors, query_BD: np.ndarray, lists: TopLists, ids: Sequence[str]) -> None:
    """Score all documents roughly, block by block, and by the kernel those that may be among the best."""
    line = _Line(lists, 2 * slack_of(shard, query_BD, float32_rounding(query_BD.shape[1])))
    pairs: list[Pairs] = []
    size = min(max(_SCORES_AT_ONCE // max(1, len(query_BD)), _SMALLEST_BLOCK), 65_536)
    for first in range(0, len(shard.vector_ND), size):
        rough_BN = rough_scores(query_BD, shard.vector_ND[first : first + size])
        pairs.append(line.pairs_above(rough_BN, first))
        is_last = first + size >= len(shard.vector_ND)
        if is_last or sum(map(len, pairs)) > _PAIRS_AT_ONCE:
            rows_B = Pairs.together(pairs).at_least(line.drawn()).rows_of(len(query_BD))
            _score_and_add(shard, query_BD, rows_B, lists, ids)
            # An exact score is as good as a rough one for drawing the line.
            line, pairs = _Line(lists, line.slack_B), []


class _Line:
    """Below which a rough score is out: the K-th best so far, less `slack_B`. It rises as scores come."""

    def __init__(self, lists: TopLists, slack_B: np.ndarray) -> None:
        self.slack_B = slack_B
        # Ascending: the K-th best comes first.
        self._best_BK = np.sort(lists.score_QK, axis=1)
        self._waiting: list[np.ndarray] = []

    def pairs_above(self, rough_BN: np.ndarray, first_row: int) -> Pairs:
        """Those of a block of rough scores that may count."""
        if np.isneginf(self._best_BK[:, 0]).any():
            self._waiting.append(rough_BN)
            return Pairs.above(rough_BN, self.drawn(), first_row)
        found = Pairs.above(rough_BN, self._at(), first_row)
        self._waiting.append(found.padded_scores(len(rough_BN)))
        # To draw it takes longer than to compare with one that is a little low.
        if sum(scores.shape[1] for scores in self._waiting) > self._best_BK.shape[1] // 2:
            self.drawn()
        return found

    def drawn(self) -> np.ndarray:
        """The line (B,), with all scores so far counted."""
        K = self._best_BK.shape[1]
        if self._waiting:
            among = np.concatenate([self._best_BK, *self._waiting], axis=1)
            self._best_BK = np.partition(among, among.shape[1] - K, axis=1)[:, -K:]
            self._waiting = []
        return self._at()

    def _at(self) -> np.ndarray:
        return self._best_BK[:, 0].astype(np.float64) - self.slack_B


def _score_and_add(
    shard: ShardOfVectors, query_BD: np.ndarray, rows_B: list[np.ndarray], lists: TopLists, ids: Sequence[str]
) -> None:
    """Put chosen rows among the lists, by the kernel's scores. No query's candidates are wider than need be."""
    scores_B = score_rows(shard.vector_ND, rows_B, query_BD, threads_here())
    for query in [query for query, score_C in enumerate(scores_B) if len(score_C) > 4 * lists.depth]:
        # One query with a shard full of ties would make all rows as wide.
        scores_B[query], rows_B[query] = _best_of_one(shard, scores_B[query], rows_B[query], lists.depth)
    width = max(map(len, rows_B), default=0)
    score_BC = np.full((len(rows_B), width), -np.inf, np.float32)
    row_BC = np.full((len(rows_B), width), NONE, np.int32)
    for query, (score_C, row_C) in enumerate(zip(scores_B, rows_B, strict=True)):
        score_BC[query, : len(score_C)] = score_C
        row_BC[query, : len(row_C)] = row_C + shard.first_row
    lists.add(score_BC, row_BC, ids)


def _best_of_one(
    shard: ShardOfVectors, score_C: np.ndarray, row_C: np.ndarray, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    order_C = np.lexsort((-shard.id_place_N[row_C], -score_C))[:depth]
    return score_C[order_C], row_C[order_C]


def _search_found(
    shard: ShardOfVectors, finder: Finder, query_BD: np.ndarray, lists: TopLists, ids: Sequence[str]
) -> None:
    """Let FAISS name candidates, and scan the shard for the queries whose list of them ends above the line."""
    found = finder.find(query_BD)
    slack_B = slack_of(shard, query_BD, finder.rounding)
    line = _Line(lists, 2 * slack_B)
    line.pairs_above(found.score_BC, 0)
    line_B = line.drawn()
    # NaN counts as above.
    is_whole_B = (found.bound_B < line_B) | (found.bound_B == -np.inf)
    above_BC = (found.score_BC >= line_B[:, None]) & is_whole_B[:, None]
    rows_B = [row_C[above_C] for row_C, above_C in zip(found.row_BC, above_BC, strict=True)]
    _score_and_add(shard, query_BD, rows_B, lists, ids)
    short = np.flatnonzero(~is_whole_B)
    if len(short):
        scanned = TopLists(lists.score_QK[short], lists.row_QK[short])
        _scan(shard, query_BD[short], scanned, ids)
        lists.score_QK[short], lists.row_QK[short] = scanned.score_QK, scanned.row_QK


def search_plainly(
    ids: Sequence[str], vector_ND: np.ndarray, query_ids: Sequence[str], query_QD: np.ndarray, depth: int
) -> Run:
    """The plain twin of exact search: every document scored by the kernel, every list sorted."""
    run = {}
    for query, query_D in zip(query_ids, query_QD, strict=True):
        rows = [row for row, id_ in enumerate(ids) if id_ != query]
        run[query] = rank([ids[row] for row in rows], score_pairs(vector_ND, query_D)[rows], depth)
    return run
