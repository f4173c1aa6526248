"""BM25 by Pyserini, as Anserini's BEIR regressions run it: one field of title and text, English Porter stemming.

Lucene lives in a process of its own (`bm25_process`): a JVM and FAISS in one process can clash over OpenMP, and the
placeholders that importing Pyserini needs stay out of ours.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from largede.errors import MachineError
from largede.retrieval.corpus import Corpus
from largede.retrieval.java import find_java_home


@dataclass(frozen=True)
class Bm25Settings:
    k1: float = 0.9
    b: float = 0.4
    depth: int = 1000
    threads: int = 2


def bm25_search(
    corpus: Corpus, queries: dict[str, str], index_folder: Path, run_path: Path, settings: Bm25Settings
) -> None:
    """Write the TREC run of `queries` to `run_path`, whole or not at all; a document with the query's own id left out.

    The index is built in `index_folder` under the corpus's fingerprint and used again when it is there. Raises
    MachineError when there is no Java or the process fails.
    """
    job = {
        "corpus": str(corpus.path),
        "index": str(index_path(index_folder, corpus)),
        "run": str(run_path),
        "queries": queries,
        **asdict(settings),
    }
    environment = os.environ | {"JAVA_HOME": str(find_java_home())}
    command = [sys.executable, "-m", "largede.retrieval.bm25_process"]
    done = subprocess.run(command, input=json.dumps(job).encode(), capture_output=True, env=environment)
    if done.returncode != 0 or not run_path.is_file():
        last = "\n  ".join(done.stderr.decode(errors="replace").strip().splitlines()[-5:])
        raise MachineError(
            f"the BM25 process ended with status {done.returncode}:\n  {last}",
            expected="status 0 and a run file",
            mend="see the lines above; `largede evaluate` can leave BM25 out with --no-bm25",
        )


def index_path(index_folder: Path, corpus: Corpus) -> Path:
    return index_folder / f"lucene-{corpus.fingerprint[:16]}"
