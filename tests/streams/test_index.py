import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shard_sets import make_shards, write_pairs

from data_tools.shard import ShardSettings, shard
from largede.errors import DataError
from largede.streams.index import INDEX_NAME, ShardIndex

Change = Callable[[dict[str, Any]], object]


def refusal(folder: Path) -> DataError:
    with pytest.raises(DataError) as raised:
        ShardIndex.load(folder)
    return raised.value


def rewrite(folder: Path, change: Change) -> None:
    path = folder / INDEX_NAME
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = make_shards(tmp_path)
    read = ShardIndex.load(made.folder)
    assert json.loads(read.to_json()) == json.loads((made.folder / INDEX_NAME).read_text())
    assert (read.samples, read.seed, len(read.shards)) == (200, 1, 5)


def test_the_fingerprint_follows_the_pairs_and_not_the_folder(tmp_path: Path) -> None:
    prints = []
    for name, count, block in [("a", 50, 8), ("b", 50, 8), ("c", 51, 8), ("d", 50, 10)]:
        write_pairs(tmp_path / f"{name}.jsonl", count)
        prints.append(shard([tmp_path / f"{name}.jsonl"], tmp_path / name, ShardSettings(20, block)).index.fingerprint)
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_no_folder_and_no_index(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").given == f"{tmp_path / 'nowhere'} has no index.json"
    assert "largede-data shard" in refusal(tmp_path).mend


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
def test_an_index_that_is_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX_NAME).write_text(text, encoding="latin-1")
    assert "is no JSON" in refusal(tmp_path).given


def test_missing_and_resized_shards(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    path = index.folder / "shard-00002.tar"
    path.write_bytes(path.read_bytes()[:-512])
    assert refusal(index.folder).given == f"{path} has {index.shards[2].bytes - 512} bytes"
    path.unlink()
    assert refusal(index.folder).given == f"{path} is missing"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r.update(version=2), "version 2"),
        (lambda r: r.update(format="tar"), "format 'tar'"),
        (lambda r: r.update(samples=r["samples"] + 1), "totals are not the sums"),
        (lambda r: r.pop("shards"), "shards"),
        (lambda r: r.update(shards=[], samples=0, bytes=0), "holds no pairs"),
        (lambda r: r.update(seed="1"), "'seed' is str, not int"),
        (lambda r: r["shards"][0].update(name="../shard-00000.tar"), "is no file name"),
        (lambda r: r["shards"][0].update(name=".."), "is no file name"),
        (lambda r: r["shards"][1].update(name="shard-00000.tar"), "two shards have one name"),
        (lambda r: r["shards"][0]["blocks"].pop(), "do not add up"),
        (lambda r: r["shards"][0]["blocks"][0].__setitem__(2, 0), "lies outside it or is empty"),
        (lambda r: r["shards"][0]["blocks"][0].__setitem__(0, 10**9), "lies outside it or is empty"),
        (lambda r: r["shards"][0]["blocks"][0].__setitem__(1, 2**62), "lies outside it or is empty"),
        (lambda r: r["shards"][0]["blocks"][0].__setitem__(1, 2**70), "contradicts itself"),
        (lambda r: r["shards"][0]["blocks"][0].append(1), "contradicts itself"),
        (lambda r: r["shards"].__setitem__(0, 3), "contradicts itself"),
    ],
)
def test_an_index_that_contradicts_itself(tmp_path: Path, change: Change, complaint: str) -> None:
    index = make_shards(tmp_path)
    rewrite(index.folder, change)
    assert complaint in refusal(index.folder).given
