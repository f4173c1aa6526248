"""Which places hang together through matches, and which of them comes first."""

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.uint64]


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
