import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from labelled_files import lines_written, pairs_in, written

from data_tools.readers import dpr
from data_tools.readers.dpr import DprOptions
from largede.errors import DataError
from largede.streams.pair import Pair


def passage(number: int, **more: Any) -> dict[str, Any]:
    return {"title": f"T{number}", "text": f"text {number}", "score": 1.5, "title_score": 0, **more}


RECORD = {
    "dataset": "nq_train_psgs_w100",
    "question": "big little lies season 2 how many episodes",
    "answers": ["seven"],
    "positive_ctxs": [passage(1, passage_id="18768923"), passage(2, psg_id=7)],
    "negative_ctxs": [passage(3, passage_id="3")],
    "hard_negative_ctxs": [passage(4, passage_id="4"), passage(5, passage_id="18768923")],
}
FIRST = Pair(
    "big little lies season 2 how many episodes",
    "text 1",
    "T1",
    ("text 4",),
    ("T4",),
    positive_id="18768923",
    negative_ids=("4",),
    other_positives=("7",),
    source="nq-train",
)


@pytest.mark.parametrize("indent", [None, 4])
def test_an_array_and_lines_read_alike(tmp_path: Path, indent: int | None) -> None:
    array = written(tmp_path / "nq-train.json", json.dumps([RECORD] * 300, indent=indent))
    lines = lines_written(tmp_path / "nq-train.jsonl", [RECORD] * 300)
    pairs, dropped = pairs_in(dpr, array, DprOptions())
    assert (pairs, dropped) == pairs_in(dpr, lines, DprOptions())
    assert pairs[0] == FIRST
    assert len(pairs) == 600
    assert dropped == {"negative listed twice, or also a positive": 300}
    compressed = tmp_path / "nq-train.json.gz"
    compressed.write_bytes(gzip.compress(array.read_bytes()))
    assert pairs_in(dpr, compressed, DprOptions())[0] == pairs


def test_easy_negatives_follow_the_hard_ones(tmp_path: Path) -> None:
    path = lines_written(tmp_path / "a.json", [RECORD])
    assert pairs_in(dpr, path, DprOptions(easy_negatives=True))[0][0].negatives == ("text 4", "text 3")
    assert pairs_in(dpr, path, DprOptions(easy_negatives=True, max_negatives=1))[0][0].negatives == ("text 4",)


def test_bad_items_are_counted(tmp_path: Path) -> None:
    items = [
        {**RECORD, "question": None},
        {**RECORD, "positive_ctxs": []},
        {**RECORD, "positive_ctxs": {"title": "T"}},
        {**RECORD, "hard_negative_ctxs": [{"title": "T", "text": 5}], "positive_ctxs": ["a text alone"]},
        ["question"],
    ]
    path = written(tmp_path / "a.json", json.dumps(items))
    pairs, dropped = pairs_in(dpr, path, DprOptions())
    assert [(pair.positive, pair.negatives) for pair in pairs] == [("a text alone", ())]
    assert dropped == {
        "no query, or an empty one": 1,
        "query without a positive": 1,
        "positives that are no list": 1,
        "negative that is no text": 1,
        "record that is no JSON object": 1,
    }
    assert dropped.examples["no query, or an empty one"] == f"{path} item 1"


def test_a_cut_array_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps([RECORD, RECORD])[:-3])
    with pytest.raises(DataError, match=r"a\.json cannot be read at character"):
        pairs_in(dpr, path, DprOptions())
