"""Exact search of made vectors on GPUs: queries a second, and lists equal to a CPU's.

    python tests/gpu/search_rates.py --documents 8800000 --dimension 768 --kind flat-fp16      # MS MARCO's size
    python tests/gpu/search_rates.py --device cpu --documents 20000 --queries 200              # tests this script

The vectors are made shard by shard from the shard's number and never all in memory. Seconds are split into making them,
which is not searching, and the search: moving each shard to the GPUs, FAISS, and scoring again. Some of the queries are
searched once more on the CPU, where no candidate comes from FAISS, and must have the same lists to the last bit.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from largede.retrieval.search import search_vectors
from largede.retrieval.search.devices import gpus_of
from largede.retrieval.search_settings import EXACT_KINDS, SearchSettings


class MadeShards:
    """Unit vectors around shared centres; `making_s` grows while they are made."""

    def __init__(self, documents: int, dimension: int, shard_size: int) -> None:
        self.documents, self.shard_size = documents, shard_size
        self.centres = np.random.default_rng(0).standard_normal((2000, dimension), dtype=np.float32)
        self.making_s = 0.0

    def __iter__(self) -> Iterator[tuple[list[str], np.ndarray]]:
        for first in range(0, self.documents, self.shard_size):
            begin = time.perf_counter()
            rows = min(self.shard_size, self.documents - first)
            vectors = self.vectors(rows, seed=1 + first)
            ids = [f"{row:08d}" for row in range(first, first + rows)]
            self.making_s += time.perf_counter() - begin
            yield ids, vectors

    def vectors(self, rows: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        found = self.centres[rng.integers(0, len(self.centres), rows)]
        found += rng.standard_normal(found.shape, dtype=np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def measure(given: argparse.Namespace) -> dict[str, object]:
    settings = SearchSettings(kind=given.kind, device=given.device, gpus=given.gpus)
    gpus = gpus_of(settings)
    shards = MadeShards(given.documents, given.dimension, given.shard_size)
    asked = shards.vectors(given.queries, seed=0)
    names = [f"q{i}" for i in range(given.queries)]
    # The first search on a GPU starts CUDA and takes FAISS's work space.
    warm = next(iter(MadeShards(1000, given.dimension, 1000)))
    search_vectors([warm], names, asked, given.top, settings)
    begin = time.perf_counter()
    run = search_vectors(shards, names, asked, given.top, settings)
    search_s = time.perf_counter() - begin - shards.making_s
    checked = names[: given.checked]
    twin = search_vectors(
        shards, checked, asked[: given.checked], given.top, SearchSettings(kind=given.kind, device="cpu")
    )
    equal = all(run[q].ids == twin[q].ids and (run[q].scores == twin[q].scores).all() for q in checked)
    return {
        "where": f"{len(gpus)} GPU(s)" if gpus else "CPU",
        "documents": given.documents,
        "dimension": given.dimension,
        "kind": given.kind,
        "queries": given.queries,
        "top": given.top,
        "shard_size": given.shard_size,
        "search_s": search_s,
        "queries_per_s": given.queries / search_s,
        "tflop_per_s": 2 * given.documents * given.dimension * given.queries / search_s / 1e12,
        "lists_checked": len(checked),
        "equal_to_cpu": equal,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--gpus", type=int)
    parser.add_argument("--documents", type=int, default=8_800_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--queries", type=int, default=6980)
    parser.add_argument("--top", type=int, default=1000)
    parser.add_argument("--kind", choices=EXACT_KINDS, default="flat")
    parser.add_argument("--shard-size", type=int, default=500_000)
    parser.add_argument("--checked", type=int, default=8, help="queries that are searched on the CPU as well")
    parser.add_argument("--out", type=Path, help="file to add the figures to")
    given = parser.parse_args()
    found = measure(given)
    print(json.dumps(found, indent=2))
    if given.out:
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    return 0 if found["equal_to_cpu"] else 1


if __name__ == "__main__":
    sys.exit(main())
