"""The pictures hold what they were given, also at the edges."""

import re
from xml.etree import ElementTree

import pytest

from largede.evaluation.report import charts, svg


def test_ticks_are_round_and_inside() -> None:
    assert svg.ticks(0, 1, 4) == [0.0, 0.5, 1.0]
    assert svg.ticks(0.13, 0.31, 4) == [0.15, 0.2, 0.25, 0.3]
    assert svg.ticks(0, 1499, 4) == [0, 500, 1000]
    assert svg.ticks(2, 2) == [2]


@pytest.mark.parametrize("count", [1, 2, 300, 301, 5000])
def test_difference_bars_never_exceed_their_number(count: int) -> None:
    values = [i / count - 0.5 for i in range(count)]
    picture = charts.difference_bars(values, "t")
    ElementTree.fromstring(picture)
    assert picture.count("<rect") == min(count, 300)


def test_discs_count_every_query() -> None:
    picture = charts.agreement([0.0, 0.0, 1.0], [0.0, 0.0, 0.5], "t")
    assert re.findall(r"(\d+) queries: dense about ([\d.]+), BM25 about ([\d.]+)", picture) == [
        ("2", "0", "0"),
        ("1", "1", "0.5"),
    ]


@pytest.mark.parametrize("points", [[(0.0, 1.0), (1.0, 1.0)], [(float(i), -float(i)) for i in range(3000)]])
def test_training_curves_are_well_formed_and_small(points: list[tuple[float, float]]) -> None:
    picture = charts.training_curve(points, "a < b")
    ElementTree.fromstring(picture)
    assert len(picture) < 40_000
