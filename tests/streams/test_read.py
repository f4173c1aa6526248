from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from shard_sets import all_places, flip_byte, make_shards

from largede.errors import DataError
from largede.streams import block as blocks
from largede.streams.block import DamagedBlock, checksum, encode_block
from largede.streams.pair import Pair
from largede.streams.read import BlockReader, read_block


def at(reader: BlockReader, *places: tuple[int, int, int]) -> list[Pair]:
    return reader.pairs(np.array(places, dtype=np.int64))


def test_any_order_gives_the_pairs_of_those_places(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    places = all_places(index)
    in_order = BlockReader(index).pairs(places)
    shuffled = np.random.default_rng(0).permutation(len(places))
    assert BlockReader(index, cache_blocks=1).pairs(places[shuffled]) == [in_order[i] for i in shuffled]


def test_cached_blocks_are_not_read_again(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    reader = BlockReader(index, cache_blocks=2)
    before = at(reader, (0, 0, 1), (0, 1, 1))
    flip_byte(index, 0, 0)
    flip_byte(index, 0, 1)
    assert at(reader, (0, 0, 1), (0, 1, 1)) == before
    at(reader, (0, 2, 0))
    with pytest.raises(DataError, match="block 0 does not match its checksum"):
        at(reader, (0, 0, 1))


def test_a_damaged_block_is_replaced_by_the_next_sound_one(tmp_path: Path) -> None:
    index = make_shards(tmp_path, count=75, shard_pairs=40, block_pairs=8)
    last_block_holds_three = index.block_sizes[1][-1] == 3
    assert last_block_holds_three
    sound = BlockReader(index)
    expected = at(sound, (1, 4, 0), (1, 4, 1), (1, 4, 7 % 3)), at(sound, (0, 1, 2))
    flip_byte(index, 1, 3)
    flip_byte(index, 0, 0)
    reader = BlockReader(index, damaged_limit=2)
    assert at(reader, (1, 3, 0), (1, 3, 4), (1, 3, 7)) == expected[0]
    assert at(reader, (0, 0, 2)) == expected[1]
    assert reader.damaged == dict.fromkeys(((1, 3), (0, 0)), "does not match its checksum")


def test_after_the_last_block_comes_the_first(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    expected = at(BlockReader(index), (0, 0, 5))
    flip_byte(index, 4, 4)
    assert at(BlockReader(index, damaged_limit=1), (4, 4, 5)) == expected


def test_past_the_limit_the_reader_names_the_blocks_and_stops(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    flip_byte(index, 0, 0)
    flip_byte(index, 0, 1)
    with pytest.raises(DataError) as raised:
        at(BlockReader(index, damaged_limit=1), (0, 0, 0))
    assert "shard-00000.tar block 0" in raised.value.given
    assert "shard-00000.tar block 1" in raised.value.given
    assert raised.value.expected == "at most 1 damaged blocks"
    assert f"largede-data verify {index.folder}" in raised.value.mend


def test_when_every_block_is_damaged_no_limit_keeps_it_searching(tmp_path: Path) -> None:
    index = make_shards(tmp_path, count=20, shard_pairs=10, block_pairs=5)
    for shard in range(2):
        for block in range(2):
            flip_byte(index, shard, block)
    with pytest.raises(DataError, match="has damaged blocks"):
        at(BlockReader(index, damaged_limit=1000), (0, 0, 0))


def test_a_shard_that_disappears_is_no_damaged_block(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    (index.folder / "shard-00000.tar").unlink()
    with pytest.raises(DataError, match=r"shard-00000\.tar is missing"):
        at(BlockReader(index, damaged_limit=1000), (0, 0, 0))


def row_of(data: bytes, samples: int, more: int = 0) -> NDArray[np.uint32]:
    return np.array([0, len(data) + more, samples, checksum(data)], dtype=np.uint32)


def test_a_block_of_other_length_than_the_index_says(tmp_path: Path) -> None:
    pairs = [Pair("q", "p"), Pair("r", "s")]
    (tmp_path / "file").write_bytes(data := encode_block(pairs))
    assert read_block(tmp_path, "file", row_of(data, 2)) == pairs
    with pytest.raises(DamagedBlock, match="does not hold 3 values of 'query'"):
        read_block(tmp_path, "file", row_of(data, 3))
    with pytest.raises(DamagedBlock, match=f"has {len(data)} bytes of {len(data) + 1}"):
        read_block(tmp_path, "file", row_of(data, 2, more=1))


def test_a_block_that_would_fill_the_memory_is_not_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(data := encode_block([Pair("q", "a" * 10_000)]))
    monkeypatch.setattr(blocks, "MAX_BLOCK_BYTES", 5_000)
    with pytest.raises(DamagedBlock, match="holds over 5000 bytes"):
        read_block(tmp_path, "file", row_of(data, 1))
