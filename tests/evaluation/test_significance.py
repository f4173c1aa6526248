"""p values: uniform between equal systems, small between different ones; Holm's correction as it is defined."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from largede.errors import DataError
from largede.evaluation.measures.metrics import interval, intervals
from largede.evaluation.measures.significance import compare, compare_collections, differences, holm


def named(values: np.ndarray) -> dict[str, float]:
    return {f"q{i}": float(value) for i, value in enumerate(values)}


def rejected(p_values: list[float]) -> float:
    return float(np.mean(np.array(p_values) < 0.05))


def test_a_difference_is_that_of_the_means_with_the_interval_of_the_differences() -> None:
    one, other = np.random.default_rng(0).random((2, 60))
    found = compare(named(one), named(other), seed=3)
    alone = intervals((one - other)[:, None], seed=3)[0]
    assert (found.mean, found.low, found.high) == (alone.mean, alone.low, alone.high)
    assert found.p_t == pytest.approx(ttest_rel(one, other).pvalue)
    turned = compare(named(other), named(one), seed=3)
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-found.mean, -found.high, -found.low))
    assert turned.p_bootstrap == found.p_bootstrap and turned.p_t == pytest.approx(found.p_t)


def test_the_order_of_the_other_systems_queries_is_of_no_account() -> None:
    one, other = np.random.default_rng(1).random((2, 30))
    assert compare(named(one), dict(reversed(named(other).items()))) == compare(named(one), named(other))


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    rng = np.random.default_rng(2)
    base = rng.random(200)
    one, other = named(base + 0.02), named(base + 0.001 * rng.standard_normal(200))
    found = compare(one, other)
    assert (found.side, compare(other, one).side) == ("above", "below")
    assert found.high - found.low < 0.1 * (interval(one).high - interval(one).low)
    assert found.p_t < 1e-9 and found.p_bootstrap == pytest.approx(2 / 10_001)


def test_p_values_are_uniform_between_equal_systems() -> None:
    """Of 1,000 pairs of equal systems on 50 queries, graded figures with many zeros, one in twenty seems different."""
    rng = np.random.default_rng(4)
    figures = rng.choice([0.0, 0.3, 0.5, 0.63, 1.0], size=(2, 50, 1000), p=[0.4, 0.1, 0.2, 0.1, 0.2])
    found = differences(figures[0] - figures[1])
    for p_values in ([one.p_t for one in found], [one.p_bootstrap for one in found]):
        assert 0.03 < rejected(p_values) < 0.08
        assert np.abs(np.quantile(p_values, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.06
    assert all(
        (one.side != "across") == (one.p_bootstrap < 0.05) for one in found if abs(one.p_bootstrap - 0.05) > 1e-3
    )


def test_power_grows_with_the_difference_and_with_the_queries() -> None:
    rng = np.random.default_rng(5)

    def power(shift: float, queries: int) -> float:
        return rejected([one.p_t for one in differences(shift + 0.2 * rng.standard_normal((queries, 200)))])

    steps = [power(0.0, 40), power(0.04, 40), power(0.04, 160), power(0.12, 160)]
    assert steps == sorted(steps) and steps[0] < 0.12 and 0.1 < steps[1] < 0.5 and steps[3] == 1.0


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.25, 0.0), (-0.25, 0.0)])
def test_differences_that_are_all_alike(shift: float, p: float) -> None:
    values = np.random.default_rng(6).integers(0, 2, 20).astype(float)
    found = compare(named(values + shift), named(values))
    assert (found.mean, found.low, found.high) == (shift, shift, shift)
    assert found.p_t == p and found.p_bootstrap == (1.0 if p else pytest.approx(2 / 10_001))


def test_one_query_says_nothing() -> None:
    found = compare({"q": 1.0}, {"q": 0.0})
    assert (found.mean, found.p_t, found.p_bootstrap) == (1.0, 1.0, 1.0)
    together = compare_collections({"a": {"q": 1.0}, "b": {"q": 1.0}}, {"a": {"q": 0.0}, "b": {"q": 0.5}})
    assert (together.mean, together.p_t, together.p_bootstrap) == (0.75, 1.0, 1.0)


@pytest.mark.parametrize("other", [{"x": 1.0}, {}, {"q": 1.0, "r": 1.0}])
def test_different_queries_are_refused(other: dict[str, float]) -> None:
    with pytest.raises(DataError, match="different queries"):
        compare({"q": 1.0}, other)
    with pytest.raises(DataError, match="different queries"):
        compare_collections({"a": {"q": 1.0}}, {"a": other})
    with pytest.raises(DataError, match="different collections"):
        compare_collections({"a": {"q": 1.0}}, {"b": {"q": 1.0}})
    with pytest.raises(DataError, match="different collections"):
        compare_collections({}, {})


def test_collections_count_alike_however_many_queries_they_have() -> None:
    rng = np.random.default_rng(7)
    sizes = {"small": 20, "large": 500}
    one = {name: named(rng.random(n)) for name, n in sizes.items()}
    other = {name: named(rng.random(n)) for name, n in sizes.items()}
    found = compare_collections(one, other)
    single = [compare(one[name], other[name]) for name in sizes]
    assert found.mean == pytest.approx(np.mean([each.mean for each in single]))
    # The variance of a mean of independent means.
    width = np.hypot(*[each.high - each.low for each in single]) / 2
    assert found.high - found.low == pytest.approx(width, rel=0.05)


def test_equal_collections_are_not_resampled_alike() -> None:
    """Twice the same figures as two collections: their independent errors make the mean surer by the root of two."""
    rng = np.random.default_rng(8)
    one, other = named(rng.random(100)), named(rng.random(100))
    twice = compare_collections({"a": one, "b": one}, {"a": other, "b": other})
    once = compare(one, other)
    assert (once.high - once.low) / (twice.high - twice.low) == pytest.approx(2**0.5, rel=0.05)


def test_of_one_collection_the_t_test_is_the_paired_one() -> None:
    one, other = np.random.default_rng(9).random((2, 40))
    found = compare_collections({"a": named(one)}, {"a": named(other)})
    assert found.p_t == pytest.approx(ttest_rel(one, other).pvalue)


def test_p_values_over_collections_are_uniform_between_equal_systems() -> None:
    rng = np.random.default_rng(10)

    def p_values() -> tuple[float, float]:
        one, other = ({name: named(rng.random(n)) for name, n in (("a", 15), ("b", 40))} for _ in range(2))
        found = compare_collections(one, other)
        return found.p_bootstrap, found.p_t

    found = np.array([p_values() for _ in range(300)])
    assert all(0.02 < rejected(column) < 0.10 for column in found.T)
    assert np.abs(np.median(found, axis=0) - 0.5).max() < 0.1


@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.012, 0.04, 0.3, 0.9, 1.0]), max_size=6))
def test_holm_closes_bonferroni(p_values: list[float]) -> None:
    """By its definition: a hypothesis falls when every set of hypotheses that holds it does, by Bonferroni's test."""
    places = range(len(p_values))
    sets = [group for size in places for group in combinations(places, size + 1)]
    expected = [
        max(min(1.0, len(group) * min(p_values[i] for i in group)) for group in sets if place in group)
        for place in places
    ]
    assert holm(p_values) == pytest.approx(expected)
