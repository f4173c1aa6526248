"""Pairs in, pairs with hard negatives out: the stages of `largede mine`, each done only where it has to be.

    OUT/work/pool/        the passages and the windows of pairs; OUT/work/embeddings, bm25-index, lists/
    OUT/work/chosen/      the pairs of each window with their negatives
    OUT/pairs/            part-00000.jsonl.zst … and pairs.json, for `largede-data shard`; whole or absent
    OUT/summary.json      what was found, what was left out and why

Memory holds the lists of one window of queries, one shard of embeddings, and the ids and keys of all passages.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from largede.errors import DataError
from largede.files import (
    read_json_object,
    remove_folder,
    remove_unfinished,
    sha256_file,
    write_json,
    writing,
    writing_folder,
)
from largede.retrieval.corpus import Document
from largede.retrieval.encode import Embeddings, EncodeSettings, encode_corpus, open_embeddings, settings_fingerprint
from largede.retrieval.encoder import Model
from largede.retrieval.java import find_java_home
from largede.retrieval.mine.choose import Chooser, Tally
from largede.retrieval.mine.lists import WindowLists
from largede.retrieval.mine.pool import Pool, PoolPair, files_of, open_pool, write_pool
from largede.retrieval.mine.settings import MineSettings
from largede.retrieval.mine.sources import PairSource, documents_at, texts_of
from largede.retrieval.processes import Process
from largede.retrieval.progress import Progress
from largede.runs.provenance import provenance
from largede.stages import run_stage, wait_for_stage
from largede.streams.pair import Pair

PAIRS = "pairs"
SUMMARY = "summary.json"
_PAIRS_AT_ONCE = 2048


@dataclass(frozen=True)
class MineJob:
    """What to mine, with which model (None: BM25 alone), and where. `embeddings` are of the corpus, made before."""

    source: PairSource
    model: Model | None
    out: Path
    settings: MineSettings
    embeddings: Path | None = None

    @property
    def work(self) -> Path:
        return self.out / "work"

    def __post_init__(self) -> None:
        if "dense" in self.settings.lists and self.model is None:
            raise DataError(
                "--from dense without a model", expected="--model", mend="name a model folder, or give --from bm25"
            )


class Mining:
    """A job at work. The first process does all stages, the others take their part of the encoding."""

    def __init__(self, job: MineJob, process: Process | None = None) -> None:
        self.job = job
        self.settings = job.settings
        self.process = process or Process()

    @cached_property
    def pool(self) -> Pool:
        return open_pool(self.job.work / "pool", self.job.source)

    @property
    def model(self) -> Model:
        assert self.job.model is not None, "jobs without a model ask for no dense list"
        return self.job.model

    @property
    def has_dense(self) -> bool:
        return "dense" in self.settings.lists

    @cached_property
    def embeddings(self) -> Embeddings:
        return open_embeddings(self.job.embeddings or self.embeddings_path, wait=self.job.embeddings is None)

    @property
    def embeddings_path(self) -> Path:
        fingerprint = settings_fingerprint(self.model, self.pool.corpus, self.encode_settings)
        return self.job.work / "embeddings" / fingerprint[:16]

    @property
    def encode_settings(self) -> EncodeSettings:
        return EncodeSettings("passage", self.settings.max_passage_tokens, self.settings.shard_size)

    def windows(self) -> Iterator[WindowLists]:
        for number in range(len(self.pool.windows)):
            yield WindowLists(self.job.work / "lists", self.pool, number, self.settings)

    def make_pool(self) -> str:
        """Read the pairs, unless that was done."""
        job, folder = self.job, self.job.work / "pool"
        corpus = job.source.corpus.fingerprint if job.source.corpus else None
        inputs: dict[str, object] = {"pairs": job.source.fingerprint, "window": self.settings.window, "corpus": corpus}
        stamp = folder / "stamp.json"
        if not self.process.is_first:
            wait_for_stage(stamp, inputs)
            return ""
        outputs = files_of(folder, job.source)

        def work() -> None:
            write_pool(job.source, folder, self.settings.window)
            outputs[:] = files_of(folder, job.source)

        done = run_stage(stamp, inputs, outputs, work)
        self._demand_ranks()
        said = f"{len(self.pool.corpus):,} passages, {len(self.pool.windows)} windows of pairs"
        return f"{said}{'' if done else ', unchanged'}"

    def _demand_ranks(self) -> None:
        first, last = self.settings.ranks
        if first > len(self.pool.corpus):
            raise DataError(
                f"--ranks {first}-{last} of {len(self.pool.corpus):,} passages",
                expected="ranks that a list of all passages has",
                mend="let the window begin at a smaller rank",
            )

    def encode(self) -> str:
        """Embed the passages, shared among the processes."""
        if not self.has_dense:
            return "left out"
        if self.job.embeddings is not None:
            self._demand_own(self.embeddings)
            return f"{self.embeddings.rows:,} embeddings of {self.job.embeddings} used"
        corpus = self.pool.corpus
        done = encode_corpus(self.model, corpus, self.embeddings_path, self.encode_settings, self.process)
        if not self.process.is_first:
            return f"{done:,} passages embedded by process {self.process.rank}"
        self._remove_outdated()
        return f"{done:,} passages embedded" if done else f"{self.embeddings.rows:,} embeddings unchanged, skipped"

    def search(self) -> str:
        """The dense list of every window."""
        if not self.has_dense:
            return "left out"
        return self._of_windows(
            "dense",
            lambda w: w.dense_inputs(self.embeddings, self.model),
            lambda w: w.search_dense(self.embeddings, self.model),
        )

    def bm25(self) -> str:
        """The BM25 list of every window."""
        if "bm25" not in self.settings.lists:
            return "left out"
        index = self.job.work / "bm25-index"
        return self._of_windows("bm25", WindowLists.bm25_inputs, lambda w: w.search_bm25(index))

    def score(self) -> str:
        """Dense scores of positives and of what BM25 alone has found, where scores are compared."""
        if not self.settings.compares_scores:
            return "left out"
        return self._of_windows(
            "scores",
            lambda w: w.scores_inputs(self.embeddings, self.model),
            lambda w: w.score_the_rest(self.embeddings, self.model),
        )

    def choose(self) -> str:
        """The negatives of every pair."""
        chosen = [self._choose_window(lists) for lists in self.windows()]
        tally = self.tally()
        found = sum(count * pairs for count, pairs in tally.pairs_by_negatives.items())
        if not found:
            raise DataError(
                f"none of {tally.candidates:,} candidates is left ({words_of(tally.left_out)})",
                expected="one negative at least",
                mend=", or ".join(["widen --ranks", *self.settings.ways_to_keep_more]),
            )
        said = f"{found:,} negatives for {tally.pairs:,} pairs, {tally.candidates:,} candidates"
        return f"{said}{'' if any(chosen) else ', unchanged'}"

    def publish(self) -> str:
        """Write summary.json and let OUT/pairs be the chosen parts."""
        job = self.job
        parts = [(self._part(lists.number), read_json_object(self._report(lists.number))) for lists in self.windows()]

        def work() -> None:
            with writing_folder(job.out / PAIRS, replacing=True) as folder:
                for path, _ in parts:
                    link_or_copy(path, folder / path.name)
                write_json(folder / "pairs.json", {"parts": [report["part"] for _, report in parts]})
            write_json(job.out / SUMMARY, self.summary())

        outputs = [job.out / SUMMARY, *(job.out / PAIRS / name for name in ("pairs.json", *(p.name for p, _ in parts)))]
        inputs: dict[str, object] = {"parts": [report for _, report in parts], "settings": asdict(self.settings)}
        done = run_stage(job.work / "published.json", inputs, outputs, work)
        return f"{job.out / PAIRS}{'' if done else ' unchanged, skipped'}"

    def tally(self) -> Tally:
        """Of all windows."""
        total = Tally()
        for lists in self.windows():
            total.add(read_json_object(self._report(lists.number))["tally"])
        return total

    def summary(self) -> dict[str, Any]:
        tally = self.tally()
        counts = tally.pairs_by_negatives
        return {
            "pairs": tally.pairs,
            "passages": len(self.pool.corpus),
            "negatives": sum(count * pairs for count, pairs in counts.items()),
            "pairs_with_fewer": sum(pairs for count, pairs in counts.items() if count < self.settings.negatives),
            "pairs_by_negatives": {str(count): pairs for count, pairs in sorted(counts.items())},
            "candidates": tally.candidates,
            "left_out": dict(tally.left_out.most_common()),
            "taken_from": dict(tally.taken_from),
            "mean_score": tally.mean_scores(),
            "data": self.job.source.words,
            "model": {"name": self.model.name, "fingerprint": self.model.fingerprint} if self.has_dense else None,
            "settings": asdict(self.settings),
            **provenance(),
        }

    def chosen_pairs(self) -> Iterator[Pair]:
        """All pairs with their negatives, in the order of the source."""
        from data_tools.pairs import PairReader

        return iter(PairReader([self._part(lists.number) for lists in self.windows()]))

    def _of_windows(
        self,
        name: str,
        inputs: Callable[[WindowLists], dict[str, object]],
        work: Callable[[WindowLists], None],
    ) -> str:
        done = 0
        progress = Progress(len(self.pool.windows), f"windows of {name}")
        for lists in self.windows():
            path = lists.path(name)
            done += run_stage(path.with_suffix(".stamp.json"), inputs(lists), (path,), partial(work, lists))
            progress.add(1)
        return f"{done} of {len(self.pool.windows)} windows" if done else "unchanged, skipped"

    def _choose_window(self, lists: WindowLists) -> bool:
        part, report = self._part(lists.number), self._report(lists.number)
        names = [*self.settings.lists, *(("scores",) if self.settings.compares_scores else ())]
        inputs: dict[str, object] = {
            "pairs": sha256_file(lists.window),
            "lists": [sha256_file(lists.path(name)) for name in names],
            "settings": asdict(self.settings),
        }

        def work() -> None:
            chooser = Chooser(lists, self.settings)
            facts = write_part(part, self._with_negatives(lists, chooser))
            write_json(report, {"part": facts, "tally": chooser.tally.to_dict()})

        return run_stage(report.with_suffix(".stamp.json"), inputs, (part, report), work)

    def _with_negatives(self, lists: WindowLists, chooser: Chooser) -> Iterator[Pair]:
        pairs = Pool.pairs(lists.window)
        while some := list(islice(pairs, _PAIRS_AT_ONCE)):
            chosen = [chooser.negatives(found) for found in some]
            passages = documents_at(self.pool.corpus, [row for rows in chosen for row in rows])
            for found, rows in zip(some, chosen, strict=True):
                yield with_negatives(
                    found, [passages[row] for row in rows], keep_ids=self.job.source.corpus is not None
                )

    def _part(self, number: int) -> Path:
        return self.job.work / "chosen" / f"part-{number:05d}.jsonl.zst"

    def _report(self, number: int) -> Path:
        return self.job.work / "chosen" / f"part-{number:05d}.json"

    def _demand_own(self, embeddings: Embeddings) -> None:
        """Refuse embeddings of another model: `search` refuses those of another corpus itself."""
        if embeddings.model != self.model.fingerprint:
            raise DataError(
                f"{embeddings.folder} was made by another model than {self.model.name}",
                expected="embeddings of --model, in the same --compute-dtype",
                mend="name the model that made them, or leave --embeddings out",
            )

    def _remove_outdated(self) -> None:
        """Embeddings of a model or setting of before."""
        for other in self.embeddings_path.parent.iterdir():
            if other != self.embeddings_path and (other / "settings.json").is_file():
                remove_folder(other)


STAGES: tuple[tuple[str, Callable[[Mining], str]], ...] = (
    ("pool", Mining.make_pool),
    ("encode", Mining.encode),
    ("search", Mining.search),
    ("BM25", Mining.bm25),
    ("score", Mining.score),
    ("choose", Mining.choose),
    ("publish", Mining.publish),
)


def mine(job: MineJob, process: Process | None = None, say: Callable[[str], None] = print) -> Mining:
    """All stages in order, a line for each. Processes other than the first leave after encoding.

    Raises:
        LargedeError: data, model or machine cannot be used; what is finished stays for the same command to go on with.
    """
    mining, begun = Mining(job, process), time.time()
    if mining.process.is_first and "bm25" in job.settings.lists and not (job.out / SUMMARY).is_file():
        find_java_home()  # missing, it is said before encoding and not after
    for name, stage in STAGES if mining.process.is_first else STAGES[:2]:
        begin = time.monotonic()
        said = stage(mining)
        say(f"{name:<8} {time.monotonic() - begin:6.1f} s  {said}")
    if mining.process.is_first:
        remove_unfinished(job.out, begun)
        for line in told(read_json_object(job.out / SUMMARY)):
            say(line)
    return mining


def told(summary: dict[str, Any]) -> Iterator[str]:
    """What the terminal shows of summary.json."""
    if summary["pairs_with_fewer"]:
        wanted = summary["settings"]["negatives"]
        yield f"{summary['pairs_with_fewer']:,} of {summary['pairs']:,} pairs have fewer than {wanted} negatives"
    if len(summary["taken_from"]) > 1:
        yield f"taken from: {words_of(summary['taken_from'])}"
    if summary["left_out"]:
        yield f"left out: {words_of(summary['left_out'])}"
    if summary["mean_score"]:
        yield "mean dense score: " + ", ".join(f"{what} {score:.3f}" for what, score in summary["mean_score"].items())


def words_of(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "nothing left out"


def with_negatives(found: PoolPair, passages: Sequence[Document], *, keep_ids: bool) -> Pair:
    """The pair as it was, with these negatives in place of its own. Ids are kept that others know: a collection's."""
    titles_and_texts = [texts_of(passage) for passage in passages]
    titles = tuple(title for title, _ in titles_and_texts)
    return found.pair._replace(
        negatives=tuple(text for _, text in titles_and_texts),
        negative_titles=titles if any(titles) else (),
        negative_ids=tuple(passage.id for passage in passages) if keep_ids else (),
    )


def write_part(path: Path, pairs: Iterator[Pair]) -> dict[str, Any]:
    """Pairs as JSON lines in one zstandard frame; what pairs.json says of the part."""
    import zstandard

    count = text_bytes = 0
    with (
        writing(path) as file,
        zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False) as stream,
    ):
        for pair in pairs:
            line = json.dumps(pair.to_dict(), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            stream.write(line)
            count, text_bytes = count + 1, text_bytes + len(line)
    return {"name": path.name, "pairs": count, "text_bytes": text_bytes, "bytes": path.stat().st_size}


def link_or_copy(path: Path, to: Path) -> None:
    """The same file under a second name, or a copy where the file system has no such names."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)
