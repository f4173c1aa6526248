import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from largede.streams.shuffle import permutation, random_keys


def splitmix64(start: int, count: int) -> list[int]:
    """The published generator in plain integers; its i-th output belongs to number i + 1."""
    mask, state, out = 2**64 - 1, start, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


def test_keys_are_splitmix64_from_the_hashed_seed() -> None:
    # First output of the published generator from state 0.
    assert splitmix64(0, 1) == [0xE220A8397B1DCDAF]
    # blake2b-64 of "rows/7/3", written down so that the hashing of seeds cannot change unseen.
    start = 0x2B041EF979F7DFD9
    assert random_keys(np.arange(1, 6), "rows", 7, 3).tolist() == splitmix64(start, 5)


@given(st.integers(0, 500), st.integers(), st.integers())
def test_a_permutation_holds_every_number_once(count: int, seed: int, epoch: int) -> None:
    order = permutation(count, "rows", seed, epoch)
    assert sorted(order.tolist()) == list(range(count))


def test_seeds_are_told_apart_part_by_part() -> None:
    orders = {tuple(permutation(50, *seed).tolist()) for seed in [(1, 11), (11, 1), (1, 1, 1), ("1", 12)]}
    assert len(orders) == 4


def test_places_are_evenly_spread() -> None:
    # Mean place of number 0 over 2,000 seeds is 49.5 with standard error 0.65; four of them either way.
    places = [permutation(100, seed).tolist().index(0) for seed in range(2000)]
    assert abs(np.mean(places) - 49.5) < 2.6
    assert len(set(places)) == 100
