"""What is evaluated, checked before anything is computed, and where each file of the output folder lies.

embeddings/   one folder for each model and corpus, one file for each model and set of queries
runs/COLLECTION/SPLIT/{dense,bm25,rrf,fused,reranked-100,...}.trec
indexes/      what the kinds of index cost and find, where they were compared
results.json, page.json, report.md, report.html
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from largede.errors import DataError
from largede.evaluation.baseline import run_path
from largede.evaluation.bm25_tuning import check_tunable
from largede.evaluation.datasets.benchmarks import open_collection
from largede.evaluation.datasets.collection import Collection
from largede.evaluation.job import EvaluationJob
from largede.evaluation.measures.answers import answer_cuts
from largede.evaluation.measures.metrics import check_measures
from largede.evaluation.results.collect import System
from largede.evaluation.task import Task
from largede.retrieval.bm25 import check_bm25_can_run
from largede.retrieval.corpus import Benchmark, Corpus
from largede.retrieval.encode import EncodeSettings, settings_fingerprint
from largede.retrieval.encoder import Model
from largede.retrieval.processes import Process
from largede.retrieval.search import check_settings
from largede.retrieval.search_settings import SearchSettings

_BM25_LABELS = {"bm25": "BM25", "bm25-multifield": "BM25 multi-field"}


@dataclass(frozen=True)
class Evaluation:
    """A job whose data has been checked, and this process's place in it."""

    job: EvaluationJob
    tasks: tuple[Task, ...]
    process: Process

    @property
    def dense(self) -> dict[str, Model]:
        """The models by the name of their system: the one under evaluation is `dense`."""
        return {"dense": self.job.model} | {model.name: model for model in self.job.baselines}

    @property
    def systems(self) -> tuple[System, ...]:
        lexical = [System(one.system, _BM25_LABELS[one.system]) for one in self.job.bm25]
        lexical += [System("rrf", "reciprocal rank"), System("fused", "fused")] if lexical else []
        lexical += [System(reranked(depth), f"BM25's {depth} re-ranked") for depth in self.job.rerank]
        others = [System(model.name, model.name, model.parameters) for model in self.job.baselines]
        return (System("dense", "dense", self.job.model.parameters), *lexical, *others)

    def benchmarks(self) -> Iterator[tuple[Benchmark, Mapping[str, Model]]]:
        """Everything that is searched, and with which models: a development split needs only the one to be fused."""
        for task in self.tasks:
            yield task.test, self.dense
        for dev in {task.dev.fingerprint: task.dev for task in self.tasks if task.dev}.values():
            yield dev, {"dense": self.job.model}

    def index_settings(self) -> tuple[SearchSettings, ...]:
        """Every way in which vectors are searched: for the lists, and for the comparison of indexes."""
        compared = [replace(self.job.search, kind=kind, device="cpu", gpus=None) for kind in self.job.compared]
        return (self.job.search, *compared)

    def run_path(self, benchmark: Benchmark, system: str) -> Path:
        return run_path(self.job.out, benchmark, system)

    def encode_settings(self, benchmark: Benchmark) -> EncodeSettings:
        return EncodeSettings("passage", benchmark.max_passage_tokens, self.job.shard_size, self.job.store_dtype)

    def embeddings_path(self, system: str, model: Model, benchmark: Benchmark) -> Path:
        fingerprint = settings_fingerprint(model, benchmark.corpus, self.encode_settings(benchmark))
        return self.job.out / "embeddings" / f"{_flat(benchmark.name)}.{system}.{fingerprint[:12]}"

    def queries_path(self, system: str, benchmark: Benchmark) -> Path:
        return self.job.out / "queries" / f"{_flat(benchmark.name)}.{system}.{benchmark.split}.npy"


def reranked(depth: int) -> str:
    """The system that puts the best `depth` of BM25 in the order of the model."""
    return f"reranked-{depth}"


def open_evaluation(job: EvaluationJob, process: Process | None = None) -> Evaluation:
    """Check all data before anything is computed. Raises DataError for it, and for names that would collide."""
    _check_baselines(job)
    corpora: dict[Path, Corpus] = {}
    dev = _open_dev(job, corpora)
    tasks = tuple(_open_task(collection, job, dev, corpora) for collection in job.data)
    _check_names(tasks)
    for task in tasks:
        task.check_untouched()
        task.check_judgements()
    evaluation = Evaluation(job, tasks, process or Process())
    _check_settings(evaluation)
    if evaluation.process.is_first:
        for task in tasks:
            _warn_of_own_documents(task)
            _warn_of_measures(task, job)
    return evaluation


def _check_baselines(job: EvaluationJob) -> None:
    names = [model.name for model in job.baselines]
    if len(set(names)) < len(names):
        raise DataError(
            f"baselines named {', '.join(names)}", expected="each name once", mend="give them different NAMEs"
        )
    for model in job.baselines:
        taken = re.fullmatch(r"dense|rrf|fused|bm25.*|reranked-.*", model.name)
        if taken or not re.fullmatch(r"[A-Za-z0-9_-]+", model.name):
            raise DataError(
                f"a baseline named {model.name!r}",
                expected="letters, digits, - and _, and not the name of another list (dense, bm25, fused ...)",
                mend="write --baseline NAME=FOLDER with another NAME",
            )


def _open_task(collection: Collection, job: EvaluationJob, dev: Benchmark | None, corpora: dict[Path, Corpus]) -> Task:
    tunable = collection if job.bm25 and dev is None else replace(collection, dev_split=None)
    opened = open_collection(tunable, corpora)
    return Task(
        test=_at_lengths(opened.test, collection, job),
        dev=dev or (_at_lengths(opened.dev, collection, job) if opened.dev else None),
        measures=_measures(collection, job),
        relevant_from=collection.relevant_from,
        group=collection.group,
        answers=opened.answers,
    )


def _measures(collection: Collection, job: EvaluationJob) -> tuple[str, ...]:
    """Those of the job that can be measured here: answers are counted where there are answers, judgements elsewhere."""
    asked = job.measures or ()
    return tuple(one for one in asked if one.startswith("Answer@") == collection.has_answers) or collection.measures


def _open_dev(job: EvaluationJob, corpora: dict[Path, Corpus]) -> Benchmark | None:
    """The collection whose queries all weights are chosen on, where one was named and there are weights."""
    if job.dev is None or not job.bm25:
        return None
    opened = open_collection(replace(job.dev, dev_split=None), corpora)
    if opened.answers is not None:
        raise DataError(f"--dev {job.dev.name}", expected="a collection with qrels", mend="name another one")
    return _at_lengths(opened.test, job.dev, job)


def _at_lengths(benchmark: Benchmark, collection: Collection, job: EvaluationJob) -> Benchmark:
    return replace(
        benchmark,
        max_query_tokens=job.max_query_tokens or collection.max_query_tokens,
        max_passage_tokens=job.max_passage_tokens or collection.max_passage_tokens,
    )


def _check_names(tasks: Sequence[Task]) -> None:
    """Two benchmarks of one name and split would write into one folder."""
    found: dict[tuple[str, str], str] = {}
    for benchmark in (benchmark for task in tasks for benchmark in (task.test, task.dev) if benchmark):
        other = found.setdefault((benchmark.name, benchmark.split), benchmark.fingerprint)
        if other != benchmark.fingerprint:
            raise DataError(
                f"two different folders called {benchmark.name!r} with a split {benchmark.split!r}",
                expected="different names",
                mend="rename one of the folders",
            )
    names = [task.test.name for task in tasks]
    if len(set(names)) < len(names):
        raise DataError(
            f"a folder given twice ({', '.join(sorted(names))})", expected="each folder once", mend="leave one out"
        )


def _warn_of_own_documents(task: Task) -> None:
    """Documents with their query's own id are left out of every list, as BEIR does. Judged relevant, they are lost."""
    own = [query for query, grades in task.test.qrels.items() if grades.get(query, 0) >= task.relevant_from]
    if own:
        print(
            f"{task.test.name}: {len(own):,} of {len(task.test.qrels):,} queries have a relevant document of their own "
            f"id ({own[0]}). It is left out of every list, as BEIR does, and cannot be found. Where ids meet by "
            "chance, rename the queries",
            file=sys.stderr,
        )


def _warn_of_measures(task: Task, job: EvaluationJob) -> None:
    """Measures that were asked for and not of this kind of collection."""
    left_out = [measure for measure in job.measures or () if measure not in task.measures]
    if left_out:
        has = "judgements and no answers" if task.answers is None else "answers and no judgements"
        told = f"{task.test.name} has {has}: {', '.join(left_out)} left out, measured by {', '.join(task.measures)}"
        print(told, file=sys.stderr)


def _check_settings(evaluation: Evaluation) -> None:
    """Refuse now what would only fail after encoding."""
    job = evaluation.job
    for measure in job.measures or ():
        # Also what none of these collections has: it may be misspelled.
        (answer_cuts if measure.startswith("Answer") else check_measures)([measure], job.depth)
    for task in evaluation.tasks:
        if task.answers is None:
            check_measures(task.measures, job.depth)
        else:
            answer_cuts(task.measures, job.depth)
    if job.bm25 and evaluation.process.is_first and not _has_all_bm25(evaluation):
        check_bm25_can_run(job.bm25_index_cache)
    if job.tune_bm25:
        check_tunable(evaluation.tasks)
    for benchmark, _ in evaluation.benchmarks():
        for settings in evaluation.index_settings():
            check_settings(settings, len(benchmark.corpus))


def _has_all_bm25(evaluation: Evaluation) -> bool:
    """Whether nothing is left to search with BM25, unless something has changed since: then no Java is needed."""
    benchmarks = [benchmark for benchmark, _ in evaluation.benchmarks()]
    runs = [evaluation.run_path(one, bm25.system) for one in benchmarks for bm25 in evaluation.job.bm25]
    return all(run.is_file() for run in runs)


def _flat(name: str) -> str:
    """The name of a collection as that of one file: parts of a group have a slash in theirs."""
    return name.replace("/", "--")
