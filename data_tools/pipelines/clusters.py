"""Which places hang together through matches, which of them comes first, and which are similar to one that stays.

Two rows are similar when all MinHashes of one band agree, and the shares of MinHashes of query and of passage that
agree, estimates of their Jaccard similarities, reach the limits. Sketches hold a byte of each MinHash: (rows, bands,
hashes).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Sketches = npt.NDArray[np.uint8]

# Up to so many rows a cluster is worked through with all others at once, in as many rounds as it keeps rows.
MOST_ROWS_AT_ONCE = 64
# Rows that stay and agree in one band, with which a later row of that band is compared: the first of them.
MOST_COMPARED = 64
_ROWS_COMPARED_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Limits:
    """Least similarities; the first `query_hashes` MinHashes of each band are the query's."""

    query_hashes: int
    query: float
    passage: float


def similar(left: Sketches, right: Sketches, limits: Limits) -> npt.NDArray[np.bool_]:
    """Whether each row of sketches on the left is similar to the one beside it, or to the only one, on the right.

    Without bands there is nothing to compare: what was matched is equal.
    """
    agree = left == right
    bands = agree.shape[1]
    if not bands:
        return np.ones(len(agree), bool)
    query, passage = agree[:, :, : limits.query_hashes], agree[:, :, limits.query_hashes :]
    both: npt.NDArray[np.bool_] = (
        agree.all(axis=2).any(axis=1)
        & (query.sum(axis=(1, 2)) >= limits.query * bands * query.shape[2])
        & (passage.sum(axis=(1, 2)) >= limits.passage * bands * passage.shape[2])
    )
    return both


def first_of_cluster(matches: Places) -> tuple[Places, Places]:
    """All places of the (matches, 2) array, ascending, and for each the first place of its cluster.

    Labels sink to the smallest of each cluster: each round takes over the smaller of two matched labels and then the
    label's own label, so that chains shorten by half.
    """
    places, ends = np.unique(matches, return_inverse=True)
    left, right = ends.reshape(-1, 2).T
    label = np.arange(len(places))
    while True:
        before = label.copy()
        least = np.minimum(label[left], label[right])
        for end in (left, right):
            np.minimum.at(label, label[end], least)
            np.minimum.at(label, end, least)
        label = label[label]
        if np.array_equal(before, label):
            return places, places[label]


def similar_to_first(places: Places, first: Places, sketches: Sketches, limits: Limits) -> tuple[Places, Places]:
    """Of each cluster the places that go, ascending, and for each the earlier place that stays and is similar to it.

    In the order of the places: what is similar to an earlier one that stays goes, anything else stays. So a chain of
    matches never takes away a pair that resembles none of those that stay.
    """
    inverse, size = np.unique(first, return_inverse=True, return_counts=True)[1:]
    cluster = inverse.reshape(-1)
    small = size[cluster] <= MOST_ROWS_AT_ONCE
    found = (
        in_rounds(np.flatnonzero(small), cluster, sketches, limits),
        one_by_one(np.flatnonzero(~small), cluster, sketches, limits),
    )
    removed, kept = (np.concatenate(rows) for rows in zip(*found, strict=True))
    order = np.argsort(removed)
    return places[removed[order]], places[kept[order]]


def in_rounds(left: Rows, cluster: Rows, sketches: Sketches, limits: Limits) -> tuple[Rows, Rows]:
    """The first row left of each cluster stays, and what is similar to it goes; the same again with what is left."""
    gone, stays = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    while len(left):
        # `left` ascends, so the first row of each cluster is its first place.
        _, heads, member = np.unique(cluster[left], return_index=True, return_inverse=True)
        leader = left[heads][member.reshape(-1)]
        left, leader = left[left != leader], leader[left != leader]
        same = np.zeros(len(left), bool)
        for begin in range(0, len(left), _ROWS_COMPARED_AT_ONCE):
            rows = slice(begin, begin + _ROWS_COMPARED_AT_ONCE)
            same[rows] = similar(sketches[left[rows]], sketches[leader[rows]], limits)
        gone.append(left[same])
        stays.append(leader[same])
        left = left[~same]
    return np.concatenate(gone), np.concatenate(stays)


def one_by_one(rows: Rows, cluster: Rows, sketches: Sketches, limits: Limits) -> tuple[Rows, Rows]:
    """The same for clusters of any size, in a time that grows as the rows do.

    A row is compared with those of its cluster that stay and agree in a band, up to MOST_COMPARED of each band. A
    sketch that was there before has the same fate again.
    """
    keepers: dict[tuple[int, bytes], int] = {}
    staying: dict[tuple[int, int, bytes], list[int]] = {}
    gone, stays = [], []
    for row in rows.tolist():
        sketch, of_cluster = sketches[row], int(cluster[row])
        keeper = keepers.get((of_cluster, sketch.tobytes()))
        if keeper is None:
            bands = [(of_cluster, number, band.tobytes()) for number, band in enumerate(sketch)]
            compared = sorted({other for band in bands for other in staying.get(band, ())})
            same = similar(sketches[compared], sketch, limits)
            keeper = compared[int(same.argmax())] if same.any() else row
            keepers[of_cluster, sketch.tobytes()] = keeper
            if keeper == row:
                for band in bands:
                    of_band = staying.setdefault(band, [])
                    if len(of_band) < MOST_COMPARED:
                        of_band.append(row)
        if keeper != row:
            gone.append(row)
            stays.append(keeper)
    return np.array(gone, np.int64), np.array(stays, np.int64)
