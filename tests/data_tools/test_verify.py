import shutil
from pathlib import Path

import numpy as np
import pytest
from shard_sets import flip_byte, make_shards

from data_tools import verify as verify_module
from data_tools.cli import main
from data_tools.tars import write_shard
from data_tools.verify import verify
from largede.errors import DataError
from largede.streams.index import BLOCKS_NAME, ShardIndex
from largede.streams.pair import Pair
from largede.streams.places.local import LocalPlace


def test_sound_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = make_shards(tmp_path)
    assert main(["verify", str(index.folder)]) == 0
    assert f"{index.folder} is sound: 200 pairs, 25 blocks, 5 shards" in capsys.readouterr().out
    assert main(["verify", str(index.folder), "--quick"]) == 0
    assert "has all its files, at their sizes: 200 pairs" in capsys.readouterr().out


def damage_all(index: ShardIndex) -> list[str]:
    """One kind of damage for each shard; what is said about it."""
    flip_byte(index, 0, 3)
    paths = [index.folder / shard.name for shard in index.shards]
    shutil.copy(paths[3], paths[1])
    header = bytearray(paths[2].read_bytes())
    header[int(index.shards[2].blocks[2, 0]) - 500] ^= 1
    paths[2].write_bytes(header)
    # Cut within block 3.
    cut = int(index.shards[4].blocks[3, 0]) + 10
    paths[4].write_bytes(paths[4].read_bytes()[:cut])
    paths[3].unlink()
    last, size = index.shards[4], int(index.shards[4].blocks[3, 1])
    return [
        "shard-00000.tar does not match its checksum",
        "shard-00000.tar block 3 does not match its checksum: 8 pairs",
        "shard-00001.tar is another file than was written: 40 pairs",
        "shard-00002.tar does not match its checksum",
        "shard-00003.tar is missing: 40 pairs",
        f"shard-00004.tar has {cut:,} bytes instead of {last.bytes:,}",
        f"shard-00004.tar block 3 has 10 bytes of {size}: 8 pairs",
        "shard-00004.tar block 4 has 0 bytes of " + f"{int(last.blocks[4, 1])}: 8 pairs",
        "shard-00009.tar is not in the index",
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_each_damage_is_named_with_the_pairs_it_affects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(verify_module, "_PROCESS_BYTES", 1)
    index = make_shards(tmp_path)
    said = damage_all(index)
    (index.folder / "shard-00009.tar").write_bytes(b"")
    verdict = verify(index.folder, workers)
    # What Python's tar reader says of a changed header or of a cut is its own choice of words.
    by_tar = [problem for problem in verdict.problems if "whole tar" in problem or "other places" in problem]
    assert [problem for problem in verdict.problems if problem not in by_tar] == said
    assert {problem.split()[0] for problem in by_tar} == {"shard-00002.tar", "shard-00004.tar"}
    assert verdict.lost_pairs == 8 + 40 + 40 + 16
    assert main(["verify", str(index.folder), "--workers", str(workers)]) == 2
    error = capsys.readouterr().err
    assert "is damaged: 104 of 200 pairs are affected" in error
    assert all(problem in error for problem in said)


def test_a_quick_look_finds_what_sizes_tell(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    flip_byte(index, 0, 3)
    (index.folder / "shard-00003.tar").unlink()
    with (index.folder / "shard-00004.tar").open("ab") as stream:
        stream.write(b"more")
    size = index.shards[4].bytes
    verdict = verify(index.folder, quick=True)
    assert verdict.problems == (
        "shard-00003.tar is missing: 40 pairs",
        f"shard-00004.tar has {size + 4:,} bytes instead of {size:,}",
    )
    assert verdict.lost_pairs == 80


def test_bytes_behind_the_last_block_lose_no_pair(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    with (index.folder / "shard-00004.tar").open("ab") as stream:
        stream.write(b"more")
    verdict = verify(index.folder)
    assert verdict.problems and verdict.lost_pairs == 0


def test_of_many_damaged_blocks_some_are_named_and_all_are_counted(tmp_path: Path) -> None:
    index = make_shards(tmp_path, count=200, shard_pairs=200, block_pairs=4)
    for block in range(0, 40, 2):
        flip_byte(index, 0, block)
    verdict = verify(index.folder)
    assert verdict.problems[-1] == "and 15 such blocks more: 60 pairs"
    assert (len(verdict.problems), verdict.lost_pairs) == (7, 80)


def test_a_table_of_blocks_that_was_changed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = make_shards(tmp_path)
    table = np.load(index.folder / BLOCKS_NAME)
    table[7, 3] ^= 1
    np.save(index.folder / BLOCKS_NAME, table)
    assert main(["verify", str(index.folder)]) == 2
    assert "blocks.npy does not match its checksum" in capsys.readouterr().err


def test_unusable_pairs_are_found_though_checksums_agree(tmp_path: Path) -> None:
    pairs = [Pair("q", "p"), Pair("q", ""), Pair("q ", "p"), Pair("q", "p", negatives=("n",), negative_ids=("a", "b"))]
    ShardIndex(LocalPlace(tmp_path), 0, "", (write_shard(tmp_path / "shard-00000.tar", [pairs]),)).save(tmp_path)
    verdict = verify(tmp_path)
    assert [problem.split(" row ")[1] for problem in verdict.problems] == [
        "1 has no positive, or an empty one",
        "2 has texts or lists in another form than `largede-data shard` writes",
        "3 has values of the wrong kind (zip() argument 2 is shorter than argument 1)",
    ]
    assert verdict.lost_pairs == 3


def test_without_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert f"{tmp_path} has no index.json" in capsys.readouterr().err
    with pytest.raises(DataError):
        verify(tmp_path, quick=True)
