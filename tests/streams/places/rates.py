"""How fast blocks come from each kind of place: `PYTHONPATH=.:tests python tests/streams/places/rates.py`.

The servers run on the same machine, in processes of their own, in Python: what is measured is both sides together.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from range_server import serving

from data_tools.shard import ShardSettings, shard
from largede.streams.index import ShardIndex
from largede.streams.places import place_of
from largede.streams.read import read_block

PAIRS = 50_000
RUNS = 5


def make_set(folder: Path) -> Path:
    """Pairs of 12 and 150 made words, in shards of 16,384 and blocks of 256."""
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(2, 9))) for _ in range(20_000)]
    with (folder / "pairs.jsonl").open("w") as file:
        for _ in range(PAIRS):
            texts = [" ".join(generator.choices(words, k=count)) for count in (12, 150)]
            file.write(json.dumps({"query": texts[0], "positive": texts[1]}) + "\n")
    return shard([folder / "pairs.jsonl"], folder / "shards", ShardSettings(16_384, 256)).index.folder


@contextmanager
def served(kind: str, folder: Path) -> Iterator[str]:
    """The address that a server of its own process prints."""
    command = [sys.executable, __file__, kind, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def serve(kind: str, folder: Path) -> None:
    if kind == "web":
        with serving(folder) as server:
            print(server.address, flush=True)
            time.sleep(3600)
    import boto3
    from moto.server import ThreadedMotoServer

    store = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    store.start()
    host, port = store.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket="made")
    for path in folder.iterdir():
        client.upload_file(str(path), "made", f"shards/{path.name}")
    print(f"http://{host}:{port}", flush=True)
    time.sleep(3600)


def measure(what: str, text: str) -> None:
    """Read all blocks as a walk does: shards in random order, and the blocks of each."""
    index = ShardIndex.load(place_of(text, allow_pipe=True))
    generator = np.random.default_rng(0)
    walk = [
        (index.shards[number].name, index.shards[number].blocks[block])
        for number in generator.permutation(len(index.shards))
        for block in generator.permutation(len(index.shards[number].blocks))
    ]
    took = []
    for _ in range(RUNS):
        started = time.perf_counter()
        for name, block in walk:
            read_block(index.place, name, block)
        took.append(time.perf_counter() - started)
        index.place.close()
    each = [1000 * seconds / len(walk) for seconds in took]
    pairs = [index.samples / seconds for seconds in took]
    kilobytes = index.bytes / len(walk) / 1000
    print(
        f"{what:8} {min(each):5.1f} to {max(each):5.1f} ms a block of {kilobytes:.0f} kB, "
        f"{min(pairs):,.0f} to {max(pairs):,.0f} pairs/s"
    )


def main() -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="made", AWS_SECRET_ACCESS_KEY="made", AWS_DEFAULT_REGION="us-east-1")
    with tempfile.TemporaryDirectory() as made:
        folder = make_set(Path(made))
        measure("folder", str(folder))
        measure("pipe:cat", f"pipe:cat {folder}/{{name}}")
        with served("web", folder) as address:
            measure("web", address)
        with served("s3", folder) as address:
            os.environ["AWS_ENDPOINT_URL"] = address
            measure("s3", "s3://made/shards")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
