from pathlib import Path
from typing import Any

import pytest
from labelled_files import grouped_pairs, written

from data_tools.readers import rocketqa
from data_tools.readers.labelled import LabelledOptions
from largede.errors import DataError
from largede.streams.pair import Pair


def read(tmp_path: Path, *rows: tuple[str, ...]) -> Any:
    path = written(tmp_path / "marco_de1_denoise.tsv", "".join("\t".join(row) + "\n" for row in rows))
    pairs, dropped = grouped_pairs(rocketqa, [path], LabelledOptions(source="s"), tmp_path, (rocketqa.pairs_of,))
    return sorted(pairs, key=lambda pair: (pair.query, pair.positive)), dropped


EXPECTED = [
    Pair("q", "a", "A", ("x", "y"), ("X", ""), other_positives=("b",), source="s"),
    Pair("q", "b", "", ("x", "y"), ("X", ""), other_positives=("A a",), source="s"),
    Pair("r", "c", "", ("z",), source="s"),
]


def test_lines_of_the_dual_encoder_s_layout_come_together_by_query(tmp_path: Path) -> None:
    rows = [
        ("q", "A", "a", "X", "x", "0"),
        ("r", "-", "c", "", "z", "0"),
        ("q", "A", "a", "-", "y", "0"),
        ("q", "", "b", "X", "x", "0"),
    ]
    assert read(tmp_path, *rows) == (EXPECTED, {})


def test_lines_of_the_cross_encoder_s_layout_come_together_by_query(tmp_path: Path) -> None:
    rows = [
        ("q", "A", "a", "1"),
        ("q", "X", "x", "0"),
        ("q", "", "b", "1"),
        ("q", "", "y", "0"),
        ("r", "-", "c", "1"),
        ("r", "-", "z", "0"),
    ]
    assert read(tmp_path, *rows) == (EXPECTED, {})


def test_bad_lines_are_counted(tmp_path: Path) -> None:
    rows = [
        ("q", "", "a", "1"),
        ("q", "", "a", "x", "0"),
        ("", "", "a", "1"),
        ("q", "", "", "0"),
        ("q", "", "a", "2"),
        ("r", "", "z", "0"),
        ("q", "", "a", "0"),
    ]
    pairs, dropped = read(tmp_path, *rows)
    assert pairs == [Pair("q", "a", source="s")]
    assert dropped == {
        "line of other than 4 columns": 1,
        "no query, or an empty one": 1,
        "no negative, or an empty one": 1,
        "label that is neither 0 nor 1": 1,
        "query without a positive": 1,
        "negative listed twice, or also a positive": 1,
    }
    pairs, dropped = read(tmp_path, ("q", "", "a", "", "x", "0"), ("q", "", "b", "", "y", "1"))
    assert len(pairs) == 1
    assert dropped == {"label that is not 0": 1}


@pytest.mark.parametrize("row", [("1", "0", "5", "7"), ("q", "p"), ("q", "", "a", "b", "1"), ()])
def test_another_layout_is_refused(tmp_path: Path, row: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="marco_de1_denoise.tsv has .* columns, the last one"):
        read(tmp_path, row)
