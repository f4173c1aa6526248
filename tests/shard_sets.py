"""Small sets of shards for tests."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tools.shard import ShardSettings, shard
from largede.streams.index import ShardIndex
from largede.streams.pair import Pair


def write_pairs(path: Path, count: int) -> list[Pair]:
    """`count` distinct pairs, every third with a hard negative, as JSON lines in `path`."""
    pairs = [
        Pair(f"question {i}", f"answer number {i} é", title=f"T{i % 5}", negatives=("no",) if i % 3 == 0 else ())
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(pair.to_dict()) + "\n" for pair in pairs))
    return pairs


def make_shards(folder: Path, count: int = 200, shard_pairs: int = 40, block_pairs: int = 8) -> ShardIndex:
    """Shards in `folder`/shards of `count` distinct pairs."""
    write_pairs(folder / "pairs.jsonl", count)
    return shard([folder / "pairs.jsonl"], folder / "shards", ShardSettings(shard_pairs, block_pairs, seed=1)).index


def all_places(index: ShardIndex) -> NDArray[np.int64]:
    """Every (shard, block, row), in the order of the files."""
    places = [
        (shard, block, row)
        for shard, sizes in enumerate(index.block_sizes)
        for block, size in enumerate(sizes)
        for row in range(size)
    ]
    return np.array(places, dtype=np.int64)


def flip_byte(index: ShardIndex, shard: int, block: int) -> None:
    """Damage one block on disk without changing the length of its shard."""
    entry = index.shards[shard]
    offset, size, *_ = entry.blocks[block].tolist()
    data = bytearray((index.folder / entry.name).read_bytes())
    data[offset + size // 2] ^= 0x40
    (index.folder / entry.name).write_bytes(data)
