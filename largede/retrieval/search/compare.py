"""What kinds of index cost and what they find: the index table of the reader-distillation paper (Yang and Seo 2020).

Recall is that of the lists `search` gives (candidates scored again, unless the settings say no) against exact search.
Seconds are those of FAISS's own index, held in memory as a server would hold it, without scoring again and without
reading the vectors. Memory is what a new process takes to load it.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from largede.errors import MachineError
from largede.retrieval.corpus import Corpus
from largede.retrieval.encode import Embeddings
from largede.retrieval.runs import Run
from largede.retrieval.search import check_fit, search
from largede.retrieval.search.approximate import candidates_for, collect, open_index, prepare
from largede.retrieval.search.devices import threads_here
from largede.retrieval.search.index_file import OpenIndex, default_folder
from largede.retrieval.search_settings import SearchSettings

CUTS = (1, 20, 50, 100)

# Resident bytes after loading, less those before: in a process of its own, as freed memory of ours would hide them.
_WEIGH = """
import os, sys
import faiss
def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = resident()
index = faiss.read_index(sys.argv[1])
print(resident() - before)
"""


def compare_indexes(
    embeddings: Embeddings,
    query_ids: Sequence[str],
    query_QD: np.ndarray,
    kinds: Sequence[str],
    settings: SearchSettings | None = None,
    *,
    corpus: Corpus | None = None,
    folder: Path | None = None,
    cuts: Sequence[int] = CUTS,
    measure: Callable[[Run], Mapping[str, float]] | None = None,
    timed_queries: int = 200,
) -> dict[str, Any]:
    """A JSON value: what was compared, and for each kind a row of `indexes`.

    Indexes are built into `folder`/KIND (empty: inside the embeddings' folder) unless they are there. `settings` gives
    everything but the kind. `measure` is called with each kind's lists: nDCG@10, say. `timed_queries` are asked one by
    one for the milliseconds at batch 1, and all queries together for those at a large batch. Raises what `search`
    raises, and RecipeError for an unknown kind.
    """
    check_fit(embeddings, query_ids, query_QD, corpus)
    depth = min(max(cuts), embeddings.rows)
    given = [replace(settings or SearchSettings(), kind=kind, device="cpu", gpus=None) for kind in kinds]  # type: ignore[arg-type]
    exact = search(embeddings, query_ids, query_QD, depth, corpus)
    rows = []
    for one in given:
        where = folder / one.kind if folder else default_folder(embeddings, one)
        # Built before it is searched, so that an exact kind, which searches without one, has its costs too.
        opened = open_index(embeddings, one, where)
        costs = _costs(opened, one, query_QD, depth, timed_queries)
        # Searching opens it itself: one of them is in memory.
        del opened
        run = search(embeddings, query_ids, query_QD, depth, corpus, one, where)
        found = {"kind": one.kind, "recall": {str(cut): recall(run, exact, cut) for cut in cuts}}
        rows.append(found | {"measures": dict(measure(run)) if measure else {}} | costs)
    return {
        "documents": embeddings.rows,
        "dimension": embeddings.dimension,
        "queries": len(query_ids),
        "threads": threads_here(),
        "rescored": (settings or SearchSettings()).rescore,
        "indexes": rows,
    }


def recall(run: Run, exact: Run, cut: int) -> float:
    """The mean over queries of the share of the exact best `cut` that is among the first `cut`."""
    shares = []
    for query, ranking in exact.items():
        true = set(ranking.top(cut).ids)
        if true:
            shares.append(len(true.intersection(run[query].top(cut).ids)) / len(true))
    return float(np.mean(shares)) if shares else 0.0


def _costs(
    opened: OpenIndex, settings: SearchSettings, query_QD: np.ndarray, depth: int, timed_queries: int
) -> dict[str, Any]:
    index = opened.index
    count = min(candidates_for(settings, depth), index.ntotal)
    prepare(index, settings)
    alone = query_QD[:timed_queries]
    collect(index, alone[:1], count)
    begin = time.perf_counter()
    for place in range(len(alone)):
        collect(index, alone[place : place + 1], count)
    middle = time.perf_counter()
    collect(index, query_QD, count)
    end = time.perf_counter()
    return {
        "candidates": count,
        "build_s": opened.facts.build_s,
        "ms_per_query_batch_1": 1000 * (middle - begin) / max(1, len(alone)),
        "ms_per_query_large_batch": 1000 * (end - middle) / max(1, len(query_QD)),
        "large_batch": len(query_QD),
        "bytes_in_memory": _bytes_in_memory(opened.folder / "index.faiss"),
        "bytes_on_disk": opened.facts.bytes,
        "settings": settings.of_list(),
    }


def _bytes_in_memory(path: Path) -> int:
    done = subprocess.run([sys.executable, "-c", _WEIGH, str(path)], capture_output=True, text=True)
    if done.returncode != 0:
        raise MachineError(
            f"loading {path} in a process of its own ended with status {done.returncode}: {done.stderr.strip()[-300:]}",
            expected="enough memory for the index twice",
            mend="compare fewer or smaller kinds, or on a machine with more memory",
        )
    return int(done.stdout)
