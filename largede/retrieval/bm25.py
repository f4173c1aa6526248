"""BM25 by Pyserini, as Anserini's BEIR regressions run it: English Porter stemming, `-bm25 -removeQuery -hits 1000`.

    flat         one field, title and text joined
    multifield   text in one field, title in another, a query's scores in both added up

Lucene lives in a process of its own (`bm25_process`), for a JVM and FAISS in one process can clash over OpenMP. What it
says is JSON lines: progress, and what went wrong; whatever Java prints goes to a file that is read when it fails.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from largede import errors
from largede.cache import cache_folder
from largede.errors import DataError, LargedeError, MachineError, NoRoomError
from largede.files import write_json
from largede.retrieval.corpus import Corpus
from largede.retrieval.java import find_java_home, heap_mib
from largede.retrieval.progress import Progress

Fields = Literal["flat", "multifield"]

# Lines of ranked lists that Java holds at a time, some 200 bytes each.
_HITS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Bm25Settings:
    """`threads` and `heap_mib` (of Java; None: half of the free memory) do not change the result.

    Raises DataError for a k1 below zero, a b outside 0 to 1, or a depth below one.
    """

    k1: float = 0.9
    b: float = 0.4
    depth: int = 1000
    threads: int = 2
    fields: Fields = "flat"
    heap_mib: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.k1 < float("inf") and 0 <= self.b <= 1 and self.depth >= 1):
            raise DataError(
                f"BM25 with k1 {self.k1}, b {self.b}, depth {self.depth}",
                expected="k1 from 0 up, b from 0 to 1, a depth of at least 1",
                mend="change them; Anserini's are k1 0.9 and b 0.4",
            )

    @property
    def system(self) -> str:
        """The name of the ranked lists that come out."""
        return "bm25" if self.fields == "flat" else f"bm25-{self.fields}"


@dataclass(frozen=True)
class Bm25Run:
    """One search of all queries: its parameters, and the TREC run file it becomes."""

    k1: float
    b: float
    path: Path


def bm25_search(
    corpus: Corpus, queries: dict[str, str], index_folder: Path | None, run_path: Path, settings: Bm25Settings
) -> None:
    """Write the TREC run of `queries` to `run_path`; everything else as `bm25_searches` does it."""
    bm25_searches(corpus, queries, index_folder, [Bm25Run(settings.k1, settings.b, run_path)], settings)


def bm25_searches(
    corpus: Corpus,
    queries: dict[str, str],
    index_folder: Path | None,
    runs: Sequence[Bm25Run],
    settings: Bm25Settings,
) -> None:
    """Write TREC runs of `queries`, one after the other in one JVM, each whole or not at all.

    The `settings.depth` best documents of each query, less the one with the query's own id. A query without a word to
    search for (stop words alone) is not in the run. The index is built in `index_folder` (None: the cache that all
    commands share) under the corpus's fingerprint, and used again when it is there and sound; of several processes one
    builds it and the others wait. Progress goes to the error stream.

    Raises MachineError when there is no Java or the process fails, DataError when the corpus changed meanwhile.
    """
    if not runs:
        return
    environment = os.environ | {"JAVA_HOME": str(check_bm25_can_run(index_folder))}
    index = index_path(index_folder or cache_folder("bm25"), corpus, settings)
    heap = heap_mib(settings.heap_mib)
    with tempfile.TemporaryDirectory(prefix="largede-bm25-") as scratch:
        topics = Path(scratch) / "queries.json"
        write_json(topics, queries)
        job = {
            "jar": str(anserini_jar()),
            "heap_mib": heap,
            "corpus": str(corpus.path),
            "fingerprint": corpus.fingerprint,
            "index": str(index),
            "fields": settings.fields,
            "tag": settings.system,
            "queries": str(topics),
            "scratch": scratch,
            "depth": settings.depth,
            "hits_at_once": _HITS_AT_ONCE,
            "threads": settings.threads,
            "runs": [{"k1": run.k1, "b": run.b, "path": str(run.path)} for run in runs],
        }
        with tempfile.TemporaryFile() as log:
            _follow(job, environment, log, _Labels(index, heap))
    missing = [run.path for run in runs if not run.path.is_file()]
    if missing:
        raise _failed("no run file", f"{missing[0]} was not written")


def check_bm25_can_run(index_folder: Path | None) -> Path:
    """The Java that will run; the folder of the indexes is made. Raises MachineError without Java or such a folder."""
    folder = index_folder or cache_folder("bm25")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise MachineError(
            f"no Lucene index can be written into {folder}: {error.strerror or error}",
            expected="a folder that can be written",
            mend="name another with --index-cache, or set LARGEDE_CACHE to one",
        ) from None
    return find_java_home()


def index_path(index_folder: Path, corpus: Corpus, settings: Bm25Settings) -> Path:
    """Where the index of a corpus lies; another version of Anserini makes another."""
    return index_folder / f"lucene-{corpus.fingerprint[:16]}-{settings.fields}-anserini-{anserini_version()}"


def anserini_version() -> str:
    found = re.fullmatch(r"anserini-(.+)-fatjar\.jar", anserini_jar().name)
    return found[1] if found else "unknown"


def anserini_jar() -> Path:
    """The jar that Pyserini carries. Raises MachineError when Pyserini is not installed; it is not imported."""
    package = importlib.util.find_spec("pyserini")
    folders = package.submodule_search_locations if package is not None else None
    jars = sorted(Path(folders[0]).glob("resources/jars/anserini-*-fatjar.jar")) if folders else []
    if not jars:
        raise MachineError(
            "pyserini is not installed, or without Anserini's jar",
            expected="the package that BM25 comes from",
            mend="pip install 'pyserini>=1.6,<2', or leave BM25 out: `largede evaluate --no-bm25`",
        )
    return jars[0]


@dataclass(frozen=True)
class _Labels:
    """What messages about a failure name."""

    index: Path
    heap_mib: int


def _follow(job: dict[str, Any], environment: dict[str, str], log: IO[bytes], labels: _Labels) -> None:
    """Run the process to its end, drawing the progress it reports. It ends itself when this process is gone."""
    command = [sys.executable, "-m", "largede.retrieval.bm25_process"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
    ) as process:
        try:
            failure = _converse(process, job)
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    if status != 0 or failure is not None:
        raise _error(status, failure, _last_lines(log), labels)


def _converse(process: "subprocess.Popen[bytes]", job: dict[str, Any]) -> dict[str, Any] | None:
    """Hand over the job, draw progress; gives the failure that the process reported, if it did."""
    assert process.stdin is not None and process.stdout is not None
    failure = None
    progress: dict[str, Progress] = {}
    try:
        # The line ends the job; the open pipe tells the process that we are alive.
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    for line in process.stdout:
        report = json.loads(line)
        if "failure" in report:
            failure = report["failure"]
        elif "say" in report:
            print(report["say"], file=sys.stderr, flush=True)
        else:
            noun = report["noun"]
            if noun not in progress:
                progress[noun] = Progress(report["total"], noun, prefix="BM25: ")
            progress[noun].add(report["done"])
    return failure


def _last_lines(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - 20_000))
    return log.read().decode(errors="replace").strip()


_NO_ROOM = ("No space left on device", "File too large", "Disk quota exceeded")
_NO_MEMORY = ("OutOfMemoryError", "There is insufficient memory", "Cannot allocate memory")
_NO_HEAP = ("Could not reserve enough space", "Too small", "Invalid maximum heap size")


def _error(status: int, failure: dict[str, Any] | None, said: str, labels: _Labels) -> LargedeError:
    """One clear error from what the process reported and what Java printed."""
    if failure is not None and failure["kind"] != "java":
        kind: type[LargedeError] = getattr(errors, failure["kind"])
        return kind(failure["given"], expected=failure["expected"], mend=failure["mend"])
    text = f"{said}\n{failure['given']}" if failure is not None else said
    if any(sign in text for sign in _NO_ROOM):
        return NoRoomError(
            f"no room left for BM25 (the index is {labels.index})",
            expected="enough free disk space for the index and the ranked lists",
            mend="free some space or choose another folder with --index-cache, then run the same command again",
        )
    if any(sign in text for sign in _NO_HEAP):
        return _memory_error(f"Java did not start with a heap of {labels.heap_mib:,} MiB", "a smaller")
    if any(sign in text for sign in _NO_MEMORY):
        return _memory_error(
            f"Java ran out of memory with a heap of {labels.heap_mib:,} MiB", "more of it, or a larger"
        )
    if status == -9:
        return _memory_error(
            f"the BM25 process was killed (signal 9) with a heap of {labels.heap_mib:,} MiB; the system does so when"
            " memory runs out",
            "a smaller",
        )
    return _failed(f"status {status}", "\n  ".join(text.strip().splitlines()[-8:]))


def _memory_error(given: str, change: str) -> MachineError:
    return MachineError(
        given, expected="memory for Lucene", mend=f"give {change} heap with --java-memory-gib, then run it again"
    )


def _failed(how: str, last: str) -> MachineError:
    return MachineError(
        f"the BM25 process ended with {how}:\n  {last}",
        expected="status 0 and a run file",
        mend="see the lines above; `largede evaluate` can leave BM25 out with --no-bm25",
    )
