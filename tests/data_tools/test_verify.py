from pathlib import Path

import pytest
from shard_sets import flip_byte, make_shards

from data_tools.cli import main
from data_tools.tars import write_shards
from data_tools.verify import verify
from largede.streams.index import ShardIndex
from largede.streams.pair import Pair
from largede.streams.places.local import LocalPlace


def test_sound_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = make_shards(tmp_path)
    assert main(["verify", str(index.folder)]) == 0
    assert f"{index.folder} is sound: 200 pairs, 25 blocks, 5 shards" in capsys.readouterr().out


def test_each_damage_is_named_and_the_rest_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = make_shards(tmp_path)
    flip_byte(index, 0, 3)
    flip_byte(index, 2, 1)
    (index.folder / "shard-00003.tar").unlink()
    with (index.folder / "shard-00004.tar").open("ab") as stream:
        stream.write(b"more")
    _, problems = verify(index.folder)
    assert problems == [
        "shard-00000.tar does not match its checksum",
        "shard-00000.tar block 3 does not match its checksum",
        "shard-00002.tar does not match its checksum",
        "shard-00002.tar block 1 does not match its checksum",
        "shard-00003.tar is missing",
        f"shard-00004.tar has {index.shards[4].bytes + 4} bytes",
    ]
    assert main(["verify", str(index.folder), "--threads", "2"]) == 2
    error = capsys.readouterr().err
    assert all(problem in error for problem in problems)


def test_a_header_changed_between_blocks_is_found(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    path = index.folder / index.shards[1].name
    data = bytearray(path.read_bytes())
    data[int(index.shards[1].blocks[2, 0]) - 500] ^= 1
    path.write_bytes(data)
    problems = verify(index.folder)[1]
    assert problems[0] == "shard-00001.tar does not match its checksum"
    assert any("no whole tar" in problem or "other places" in problem for problem in problems)


def test_a_pair_without_an_answer_is_found_though_checksums_agree(tmp_path: Path) -> None:
    shards = write_shards(iter([Pair("q", "p"), Pair("q", "")]), tmp_path, 2, 2)
    ShardIndex(LocalPlace(tmp_path), 0, "", tuple(shards)).save(tmp_path)
    problems = verify(tmp_path)[1]
    assert problems == ["shard-00000.tar block 0 row 1 has no positive, or an empty one"]


def test_without_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert f"{tmp_path} has no index.json" in capsys.readouterr().err
