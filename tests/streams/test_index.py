import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_sets import make_shards, write_pairs

from data_tools.shard import ShardSettings, shard
from largede.errors import DataError
from largede.files import sha256_file
from largede.streams.index import BLOCKS_NAME, INDEX_NAME, ShardIndex

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
    read.save(tmp_path)
    for name in (INDEX_NAME, BLOCKS_NAME):
        assert (tmp_path / name).read_bytes() == (made.folder / name).read_bytes()
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
        (lambda r: r.update(version=1), "version 1"),
        (lambda r: r.update(format="tar"), "format 'tar'"),
        (lambda r: r.update(samples=r["samples"] + 1), "totals are not the sums"),
        (lambda r: r.pop("shards"), "shards"),
        (lambda r: r.update(shards=[], samples=0, bytes=0), "holds no pairs"),
        (lambda r: r.update(seed="1"), "'seed' is str, not int"),
        (lambda r: r["shards"][0].update(name="../shard-00000.tar"), "is no file name"),
        (lambda r: r["shards"][0].update(name=".."), "is no file name"),
        (lambda r: r["shards"][1].update(name="shard-00000.tar"), "two shards have one name"),
        (lambda r: r["shards"][0].update(blocks=4), "has blocks of no shard"),
        (lambda r: r["shards"][0].update(blocks=0), "has 0 blocks"),
        (lambda r: r["shards"][4].update(blocks=6), "has 6 blocks, blocks.npy has 5"),
        (lambda r: r["blocks"].update(sha256="0"), "does not match its checksum"),
        (lambda r: r["blocks"].update(count=24), "is not uint32 (24, 4)"),
        (lambda r: r.pop("blocks"), "contradicts itself"),
        (lambda r: r["shards"].__setitem__(0, 3), "contradicts itself"),
    ],
)
def test_an_index_that_contradicts_itself(tmp_path: Path, change: Change, complaint: str) -> None:
    index = make_shards(tmp_path)
    rewrite(index.folder, change)
    assert complaint in refusal(index.folder).given


@pytest.mark.parametrize(
    ("row", "column", "value", "complaint"),
    [
        (0, 0, 100, "a block of shard-00000.tar lies outside it or is empty"),
        (7, 0, 2**32 - 1, "a block of shard-00001.tar lies outside it or is empty"),
        (24, 1, 10**9, "a block of shard-00004.tar lies outside it or is empty"),
        (3, 2, 0, "a block of shard-00000.tar lies outside it or is empty"),
        (3, 2, 7, "the blocks of shard-00000.tar do not add up to 40 pairs"),
    ],
)
def test_a_table_of_blocks_that_contradicts_the_index(
    tmp_path: Path, row: int, column: int, value: int, complaint: str
) -> None:
    index = make_shards(tmp_path)
    table = np.load(index.folder / BLOCKS_NAME)
    table[row, column] = value
    np.save(index.folder / BLOCKS_NAME, table)
    checksum = sha256_file(index.folder / BLOCKS_NAME)
    rewrite(index.folder, lambda record: record["blocks"].update(sha256=checksum))
    assert complaint in refusal(index.folder).given


def test_no_table_of_blocks(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    (index.folder / BLOCKS_NAME).unlink()
    assert refusal(index.folder).given.endswith("blocks.npy is missing")
