"""Exact search beside faiss.knn, sentence-transformers and BEIR: one run, interleaved, repeated.

    OMP_NUM_THREADS=2 python tests/retrieval/measure_search.py --documents 200000 --dimension 384 --queries 1000

Each ends with named documents in order for every query: ours as tuples of ids, faiss.knn as arrays of row numbers
(nothing is named, so it does less), the others as the lists and dictionaries they give. The vectors are in memory for
all. CPU seconds, of all threads, are steadier than wall seconds where the machine has other work.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_vectors import clustered

from largede.retrieval.search import search_vectors


class Given:
    """For BEIR: a model that has encoded everything already."""

    def __init__(self, table: np.ndarray, asked: np.ndarray) -> None:
        self.table, self.asked = torch.from_numpy(table), torch.from_numpy(asked)

    def encode_queries(self, queries: list[str], **more: Any) -> torch.Tensor:
        return self.asked

    def encode_corpus(self, corpus: list[dict[str, str]], **more: Any) -> torch.Tensor:
        first = int(corpus[0]["text"])
        return self.table[first : first + len(corpus)]


def contenders(table: np.ndarray, asked: np.ndarray, shards: int) -> dict[str, Callable[[int], Any]]:
    import faiss
    from beir.retrieval.search.dense import DenseRetrievalExactSearch
    from sentence_transformers.util import dot_score, semantic_search

    ids, names = [f"d{i:08d}" for i in range(len(table))], [f"q{i}" for i in range(len(asked))]
    edges = np.linspace(0, len(table), shards + 1).astype(int).tolist()
    parts = [(ids[a:b], table[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    # All texts of one length: BEIR sorts by it, and the order of the vectors has to stay.
    corpus = {id_: {"title": "", "text": f"{row:08d}"} for row, id_ in enumerate(ids)}
    tables = torch.from_numpy(table), torch.from_numpy(asked)

    def ours(given: list[tuple[list[str], np.ndarray]]) -> Callable[[int], Any]:
        def run(top: int) -> Any:
            found = search_vectors(given, names, asked, top, names=ids)
            return [found[name].ids for name in names]

        return run

    def beir(top: int) -> Any:
        model = DenseRetrievalExactSearch(Given(table, asked), corpus_chunk_size=50_000, show_progress_bar=False)
        return model.search(corpus, dict.fromkeys(names, "x"), top, "dot")

    def sentence_transformers(chunk: int) -> Callable[[int], Any]:
        return lambda top: semantic_search(
            tables[1], tables[0], query_chunk_size=chunk, top_k=top, score_function=dot_score
        )

    return {
        "largede, 1 shard": ours([(ids, table)]),
        f"largede, {shards} shards": ours(parts),
        "faiss.knn": lambda top: faiss.knn(asked, table, top, metric=faiss.METRIC_INNER_PRODUCT),
        "sentence-transformers, 100 queries at once": sentence_transformers(100),
        "sentence-transformers, 1,000 queries at once": sentence_transformers(1000),
        "BEIR": beir,
    }


def seconds(work: Callable[[int], Any], top: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work(top)
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    table = clustered(given.documents, given.dimension, given.documents // 100)
    asked = clustered(given.queries, given.dimension, given.documents // 100, seed=1)
    rows = []
    for top in given.top:
        everyone = contenders(table, asked, given.shards)
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in everyone}
        for _ in range(given.rounds):
            for name, work in everyone.items():
                taken[name].append(seconds(work, top))
        ours = taken["largede, 1 shard"]
        for name, times in taken.items():
            row: dict[str, Any] = {"top": top, "name": name}
            for kind in ("wall_s", "cpu_s"):
                row[kind] = sorted(one[kind] for one in times)
                ratios = [one[kind] / mine[kind] for one, mine in zip(times, ours, strict=True)]
                row[f"times_ours_{kind}"] = [float(np.median(ratios)), min(ratios), max(ratios)]
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--top", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    import faiss

    print(
        f"{given.documents:,} x {given.dimension}, {given.queries:,} queries, {torch.get_num_threads()} torch and "
        f"{faiss.omp_get_max_threads()} FAISS threads, faiss {faiss.__version__}, torch {torch.__version__}"
    )
    rows = measure(given)
    print("| top | | wall s, median (range) | CPU s, median (range) | times ours, CPU: median (range) |")
    print("|---|---|---|---|---|")
    for row in rows:
        spans = [f"{np.median(row[k]):.2f} ({row[k][0]:.2f} to {row[k][-1]:.2f})" for k in ("wall_s", "cpu_s")]
        middle, low, high = row["times_ours_cpu_s"]
        print(f"| {row['top']} | {row['name']} | {' | '.join(spans)} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
