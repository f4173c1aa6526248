"""Which places hang together through matches, and which of them comes first."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


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


def similar_to_first(
    places: Places, first: Places, similar: Callable[[Rows, Rows], npt.NDArray[np.bool_]]
) -> tuple[Places, Places]:
    """Of each cluster the places that go, ascending, and for each the earlier place that stays and is similar to it.

    The first of a cluster stays, and what is similar to it goes; the same again with what is left of the cluster. So a
    chain of matches never takes away a pair that resembles none of those that stay.
    """
    cluster = np.unique(first, return_inverse=True)[1].reshape(-1)
    left = np.arange(len(places))
    gone, stays = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    while len(left):
        # `left` ascends, so the first row of each cluster is its first place.
        _, heads, member = np.unique(cluster[left], return_index=True, return_inverse=True)
        leader = left[heads][member.reshape(-1)]
        same = similar(left, leader)
        goes = same & (left != leader)
        gone.append(left[goes])
        stays.append(leader[goes])
        left = left[~same & (left != leader)]
    removed, kept = np.concatenate(gone), np.concatenate(stays)
    order = np.argsort(removed)
    return places[removed[order]], places[kept[order]]


def first_of_cluster_plain(matches: Places) -> tuple[list[int], list[int]]:
    """The same with a union of one match after the other."""
    parent: dict[int, int] = {}

    def root(place: int) -> int:
        while parent.setdefault(place, place) != place:
            place = parent[place]
        return place

    for left, right in matches.tolist():
        smaller, larger = sorted((root(left), root(right)))
        parent[larger] = smaller
    places = sorted(parent)
    return places, [root(place) for place in places]
