"""The shards are ordinary webdataset tars: the lines in the page on the format read them without largede."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from shard_sets import write_pairs

from data_tools.shard import shard
from data_tools.shard_settings import ShardSettings
from largede.streams.pair import Pair

PAGE = Path(__file__).parents[2] / "largede" / "streams" / "README.md"


def lines_of_the_page() -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def test_the_lines_in_the_page_read_whole_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write_pairs(tmp_path / "in.jsonl", 100)
    shard([tmp_path / "in.jsonl"], tmp_path / "shards", ShardSettings(shard_pairs=40, block_pairs=16))
    monkeypatch.chdir(tmp_path)
    code, names = lines_of_the_page(), dict[str, Any]()
    assert "largede" not in code
    exec(code, names)
    back = []
    for sample in names["blocks"]:
        for pair in names["pairs"](sample):
            lists = {name: tuple(value) for name, value in pair.items() if isinstance(value, list)}
            back.append(Pair(**{**pair, **lists}))
    assert Counter(back) == Counter(made)
    assert any(pair.negatives for pair in back) and any(pair.title for pair in back)
