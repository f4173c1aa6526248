from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet
import pytest
from labelled_files import lines_written, pairs_in

from data_tools.readers import jsonl, parquet
from data_tools.readers.fields import FieldOptions
from largede.errors import DataError

ROWS = [
    {
        "query": f"q{i}",
        "positive": f"Straße {i}" if i % 7 else None,
        "title": None,
        "negatives": [{"id": str(i), "text": f"bad {i}"}] if i % 3 else [],
        "score": i / 2,
        "unread": b"x" * 10,
    }
    for i in range(3000)
]


def table_written(path: Path, rows: list[dict[str, object]] = ROWS) -> Path:
    arrow.parquet.write_table(arrow.Table.from_pylist(rows), path, row_group_size=700)
    return path


def test_parquet_and_json_lines_of_the_same_rows_read_alike(tmp_path: Path) -> None:
    read = [{name: value for name, value in row.items() if name != "unread"} for row in ROWS]
    plain = pairs_in(jsonl, lines_written(tmp_path / "a.jsonl", read), FieldOptions())
    columns = pairs_in(parquet, table_written(tmp_path / "a.parquet"), FieldOptions())
    assert columns == plain
    assert len(plain[0]) == 2571
    assert columns[1] == {"no positive, or an empty one": 429}
    assert columns[1].examples["no positive, or an empty one"].endswith("a.parquet row 1")


def test_columns_may_have_any_name_and_a_missing_one_is_named(tmp_path: Path) -> None:
    path = table_written(tmp_path / "nq.parquet", [{"anchor": "q", "answers": ["a", "b"], "neg": "c"}])
    options = FieldOptions(query_field="anchor", positive_field="answers", negatives_field="neg")
    pairs, _ = pairs_in(parquet, path, options)
    assert [(p.query, p.positive, p.negatives, p.source) for p in pairs] == [
        ("q", "a", ("c",), "nq"),
        ("q", "b", ("c",), "nq"),
    ]
    with pytest.raises(DataError) as raised:
        pairs_in(parquet, path, FieldOptions(query_field="anchor", positive_field="answer"))
    assert raised.value.given == f"{path} has no column 'answer'"
    assert "anchor, answers, neg" in raised.value.expected
    assert raised.value.mend == "name it with --positive-field, perhaps answers"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "missing", "text"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = table_written(tmp_path / "a.parquet")
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[-100] ^= 0xFF
    path.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "empty": b"", "text": b"{}\n"}.get(damage, b""))
    if damage == "missing":
        path.unlink()
    with pytest.raises(DataError, match=r"a\.parquet"):
        pairs_in(parquet, path, FieldOptions())
