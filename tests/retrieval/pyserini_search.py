"""Pyserini's FaissSearcher in a process of its own: FOLDER QUERIES.npy DEPTH RUN.trec, queries named q0, q1, ...

The JVM is started before Pyserini is imported: its own start asks for a module that small Java runtimes lack.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    folder, queries, depth, run = sys.argv[1:]
    os.environ.setdefault("OPENAI_API_KEY", "placeholder")
    import jnius_config

    (package,) = find_spec("pyserini").submodule_search_locations
    (jar,) = Path(package, "resources", "jars").glob("anserini-*-fatjar.jar")
    jnius_config.add_classpath(str(jar))
    import jnius  # noqa: F401
    import numpy as np
    from pyserini.search.faiss import FaissSearcher

    vectors = np.load(queries)
    searcher = FaissSearcher(folder, query_encoder=None)
    found = searcher.batch_search(vectors, [f"q{i}" for i in range(len(vectors))], k=int(depth))
    with open(run, "w", encoding="utf-8") as out:
        for query, hits in found.items():
            for place, hit in enumerate(hits, start=1):
                out.write(f"{query} Q0 {hit.docid} {place} {float(hit.score):.9g} pyserini\n")


if __name__ == "__main__":
    main()
