"""Two billion pairs: 40,000 shards of 195 blocks, started at step 400,000."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from largede.streams.block import checksum, encode_block
from largede.streams.index import Shard, ShardIndex
from largede.streams.pair import Pair

SHARDS, BLOCKS, PAIRS = 40_000, 195, 256
HARDLINKS_PER_FILE = 20_000

START = """
import json, resource, sys, time
started = time.perf_counter()
from pathlib import Path
from largede.streams import read
from largede.streams.batches import PairBatches

decode_block, opened, decoded = read.decode_block, set(), []
def counted(data, samples):
    decoded.append(samples)
    return decode_block(data, samples)
read.decode_block = counted
sys.addaudithook(lambda event, given: opened.add(given[0]) if event == "open" and ".tar" in str(given[0]) else None)

folder, ranks, rank, lanes = sys.argv[1], *map(int, sys.argv[2:])
batches = PairBatches(
    Path(folder), batch_size=2048, lanes=lanes, seed=0, rank=rank, world_size=ranks, start_step=400_000,
    transform=lambda pairs, step: (step, len(pairs)),
)
batches.fingerprint
step, rows = next(iter(batches))
took = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"pairs": batches.samples, "step": step, "rows": rows, "files": len(opened), "blocks": len(decoded),
                  "seconds": took, "mib": peak}))
"""


@pytest.fixture(scope="module")
def two_billion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All shards are links to the same few files, so they take no room."""
    folder = tmp_path_factory.mktemp("two-billion")
    block = encode_block([Pair(f"question {i}", f"answer {i} " + "word " * 40) for i in range(PAIRS)])
    stride = 512 + -(-len(block) // 512) * 512
    offsets = 512 + np.arange(BLOCKS) * stride
    numbers = [np.full(BLOCKS, number) for number in (len(block), PAIRS, checksum(block))]
    rows = np.stack([offsets, *numbers], axis=1).astype(np.uint32)
    data = bytearray(BLOCKS * stride + 1024)
    for offset in offsets.tolist():
        data[offset : offset + len(block)] = block
    shards = []
    for number in range(SHARDS):
        shards.append(Shard(f"shard-{number:05d}.tar", BLOCKS * PAIRS, len(data), "0" * 64, rows))
        if number % HARDLINKS_PER_FILE == 0:
            original = folder / shards[-1].name
            original.write_bytes(data)
        else:
            os.link(original, folder / shards[-1].name)
    ShardIndex(folder, 0, "made", tuple(shards)).save(folder)
    return folder


@pytest.mark.parametrize(("ranks", "lanes", "lanes_of_rank"), [(1, 64, 64), (64, 64, 1), (64, 2048, 32)])
def test_a_run_of_two_billion_pairs_goes_on_within_seconds_and_reads_what_it_needs(
    two_billion: Path, ranks: int, lanes: int, lanes_of_rank: int
) -> None:
    answer = started(two_billion, ranks, ranks // 2, lanes)
    print(answer)
    assert answer["pairs"] == SHARDS * BLOCKS * PAIRS == 1_996_800_000
    assert (answer["step"], answer["rows"]) == (400_000, 2048 // ranks)
    # One block of one shard for each lane: rows of a batch come from the middle of a block here.
    assert answer["files"] == answer["blocks"] == lanes_of_rank
    assert answer["seconds"] < 10


def started(folder: Path, *numbers: int) -> dict[str, Any]:
    command = [sys.executable, "-c", START, str(folder), *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
