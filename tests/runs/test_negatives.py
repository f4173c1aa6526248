"""What a run decided of its hard negatives is read back as it was written, and old generations go when they may."""

import json
from pathlib import Path

import pytest

from largede.errors import DataError
from largede.runs.negatives import (
    Adopted,
    Decisions,
    generation_names,
    names_to_remove,
    next_name,
    read_decisions,
    write_decisions,
)

TWO = Decisions(40, (Adopted(10, "gen-00001", "a"), Adopted(30, "gen-00003", "b")))


def test_a_batch_is_of_the_last_generation_decided_before_it(tmp_path: Path) -> None:
    write_decisions(tmp_path, TWO)
    read = read_decisions(tmp_path)
    assert read == TWO
    names = [found.name if (found := read.at(batch)) else "" for batch in (0, 9, 10, 29, 30, 99)]
    assert names == ["", "", "gen-00001", "gen-00001", "gen-00003", "gen-00003"]
    assert Decisions.from_dict({}) == Decisions() == read_decisions(tmp_path / "nothing")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        json.dumps({"generations": []}),
        json.dumps({"decided": 5, "generations": [{"from_batch": 7, "name": "gen-00001", "fingerprint": "a"}]}),
        json.dumps({"decided": 5, "generations": [{"from_batch": 3}]}),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "negatives.json").write_text(content)
    with pytest.raises(DataError, match=r"negatives\.json"):
        read_decisions(tmp_path)


def test_a_name_is_never_given_twice(tmp_path: Path) -> None:
    assert next_name(tmp_path) == "gen-00001"
    (tmp_path / "negatives" / "gen-00001").mkdir(parents=True)
    (tmp_path / "negatives" / ".gen-00002.x.partial").mkdir()
    assert generation_names(tmp_path) == ["gen-00001"]
    assert next_name(tmp_path) == "gen-00002"
    write_decisions(tmp_path, TWO)
    assert next_name(tmp_path) == "gen-00004"


def test_a_generation_goes_when_no_checkpoint_would_read_it_again() -> None:
    names = [f"gen-{number:05d}" for number in range(1, 8)]
    # 2 was passed over for 3; of those not read yet, 4 to 7, the newest two stay.
    assert names_to_remove(names, TWO, 29) == ["gen-00002", "gen-00004", "gen-00005"]
    assert names_to_remove(names, TWO, 30) == ["gen-00001", "gen-00002", "gen-00004", "gen-00005"]
    assert names_to_remove(names, TWO, None) == ["gen-00002", "gen-00004", "gen-00005"]
    assert names_to_remove(names[:2], Decisions(), 5) == []
