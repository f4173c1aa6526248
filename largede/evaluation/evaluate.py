"""A model and collections in, runs and figures out: the stages of `largede evaluate`, each on its own.

    evaluation = open_evaluation(job)
    run_stages(evaluation)          # or one by one: print(stage.run(evaluation)) for each stage of STAGES

Every stage gives one sentence about what it did, and does only what is missing or out of date. The output folder:

    embeddings/   one folder for each model and corpus
    bm25-index/   one Lucene index for each corpus
    runs/COLLECTION/SPLIT/{dense,bm25,fused,...}.trec
    results.json, report.html
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from largede.errors import DataError
from largede.evaluation.baseline import run_bm25
from largede.evaluation.examples import HITS, choose_examples
from largede.evaluation.job import EvaluationJob
from largede.evaluation.metrics import PerQuery, per_query
from largede.evaluation.report import render_report
from largede.evaluation.results import System, Task, collect_results
from largede.evaluation.stages import run_stage
from largede.evaluation.weight import UNCHOSEN, FusionWeight, choose_weight
from largede.files import read_json_object, sha256_file, write_json, writing
from largede.retrieval.corpus import Benchmark, Corpus, open_benchmark
from largede.retrieval.encode import EncodeSettings, encode_corpus, open_embeddings, settings_fingerprint
from largede.retrieval.encoder import Model, embed_checked
from largede.retrieval.fuse import fuse
from largede.retrieval.processes import Process
from largede.retrieval.runs import Run, read_run, write_run
from largede.retrieval.search import search
from largede.runs.provenance import provenance


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
        lexical = [System("bm25", "BM25"), System("fused", "fused")] if self.job.bm25 else []
        others = [System(model.name, model.name) for model in self.job.baselines]
        return (System("dense", "dense"), *lexical, *others)

    def benchmarks(self) -> Iterator[tuple[Benchmark, dict[str, Model]]]:
        """Everything that is searched, and with which models: a development split needs only the one to be fused."""
        for task in self.tasks:
            yield task.test, self.dense
        for dev in {task.dev.fingerprint: task.dev for task in self.tasks if task.dev}.values():
            yield dev, {"dense": self.job.model}

    def run_path(self, benchmark: Benchmark, system: str) -> Path:
        return self.job.out / "runs" / benchmark.name / benchmark.split / f"{system}.trec"

    def encode_settings(self) -> EncodeSettings:
        return EncodeSettings("passage", self.job.max_passage_tokens, self.job.shard_size)

    def embeddings_path(self, system: str, model: Model, benchmark: Benchmark) -> Path:
        fingerprint = settings_fingerprint(model, benchmark.corpus, self.encode_settings())
        return self.job.out / "embeddings" / f"{benchmark.name}.{system}.{fingerprint[:12]}"


def open_evaluation(job: EvaluationJob, process: Process | None = None) -> Evaluation:
    """Check all data before anything is computed. Raises DataError for it, and for names that would collide."""
    for model in job.baselines:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", model.name) or model.name in ("dense", "bm25", "fused"):
            raise DataError(
                f"a baseline named {model.name!r}",
                expected="letters, digits, - and _, and not dense, bm25 or fused",
                mend="write --baseline NAME=FOLDER with another NAME",
            )
    dev = _open_dev(job.dev) if job.dev and job.bm25 else None
    tasks = tuple(_open_task(folder, job, dev) for folder in job.data)
    _check_names(tasks)
    return Evaluation(job, tasks, process or Process())


def encode(evaluation: Evaluation) -> str:
    """Embed every corpus with every model, shared among the processes."""
    done = total = 0
    for folder, model, corpus in _encodings(evaluation):
        done += encode_corpus(model, corpus, folder, evaluation.encode_settings(), evaluation.process)
        total += len(corpus)
    if not evaluation.process.is_first:
        return f"{done:,} passages embedded by process {evaluation.process.rank}"
    for folder, _, _ in _encodings(evaluation):
        open_embeddings(folder, wait=True)
        _remove_outdated(folder)
    return f"{done:,} passages embedded" if done else f"{total:,} embeddings unchanged, skipped"


def search_dense(evaluation: Evaluation) -> str:
    """Search every collection with every model."""
    done = [
        _search_one(evaluation, benchmark, system, model)
        for benchmark, models in evaluation.benchmarks()
        for system, model in models.items()
    ]
    return _said(done, "dense run")


def search_bm25(evaluation: Evaluation) -> str:
    """Search every collection with BM25."""
    settings = evaluation.job.bm25
    if settings is None:
        return "left out"
    return _said(
        [run_bm25(evaluation.job.out, benchmark, settings) for benchmark, _ in evaluation.benchmarks()], "BM25 run"
    )


def fuse_runs(evaluation: Evaluation) -> str:
    """Choose the weight of each collection and fuse its two lists."""
    if evaluation.job.bm25 is None:
        return "left out"
    done = [_fuse_one(evaluation, task) for task in evaluation.tasks]
    weights = ", ".join(f"{read_weight(evaluation, task).weight:.2f}" for task in evaluation.tasks)
    return f"{_said(done, 'fused run')}; dense weight {weights}"


def report(evaluation: Evaluation) -> str:
    """Write results.json and report.html."""
    job = evaluation.job
    results_path, page_path = job.out / "results.json", job.out / "report.html"

    def work() -> None:
        values, heads = _measure(evaluation)
        weights = {task.test.name: read_weight(evaluation, task) for task in evaluation.tasks if job.bm25}
        results = collect_results(job.title, evaluation.tasks, evaluation.systems, values, weights, job.seed)
        results |= {"settings": _settings(job), "about": job.about | provenance()}
        examples = choose_examples(results, evaluation.tasks, heads, job.seed)
        write_json(results_path, results)
        with writing(page_path) as stream:
            stream.write(render_report(results, examples, job.curves).encode())

    done = run_stage(job.out / ".report.json", _report_inputs(evaluation), (results_path, page_path), work)
    return f"{page_path}" if done else f"{page_path} unchanged, skipped"


@dataclass(frozen=True)
class Stage:
    """`encode` runs on every process, the others on the first alone."""

    name: str
    run: Callable[[Evaluation], str]


STAGES = (
    Stage("encode", encode),
    Stage("search", search_dense),
    Stage("BM25", search_bm25),
    Stage("fuse", fuse_runs),
    Stage("report", report),
)


def run_stages(evaluation: Evaluation) -> None:
    """All stages in order, a line with the time of each. Processes other than the first leave after encoding."""
    for stage in STAGES if evaluation.process.is_first else STAGES[:1]:
        begin = time.monotonic()
        said = stage.run(evaluation)
        print(f"{stage.name:<8} {time.monotonic() - begin:6.1f} s  {said}", flush=True)


def read_weight(evaluation: Evaluation, task: Task) -> FusionWeight:
    """The weight that `fuse_runs` chose."""
    found = read_json_object(_weight_path(evaluation, task))
    return FusionWeight(found["weight"], found["chosen_on"], tuple((w, figure) for w, figure in found["curve"]))


def _open_dev(folder: Path) -> Benchmark:
    return open_benchmark(folder, "dev" if (folder / "qrels" / "dev.tsv").is_file() else "test")


def _open_task(folder: Path, job: EvaluationJob, dev: Benchmark | None) -> Task:
    test = open_benchmark(folder, job.split)
    if dev is None and job.bm25 and job.split != "dev" and (folder / "qrels" / "dev.tsv").is_file():
        dev = open_benchmark(folder, "dev", test.corpus)
    return Task(test, dev)


def _check_names(tasks: tuple[Task, ...]) -> None:
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


def _encodings(evaluation: Evaluation) -> Iterator[tuple[Path, Model, Corpus]]:
    seen = set()
    for benchmark, models in evaluation.benchmarks():
        for system, model in models.items():
            folder = evaluation.embeddings_path(system, model, benchmark)
            if folder not in seen:
                seen.add(folder)
                yield folder, model, benchmark.corpus


def _remove_outdated(folder: Path) -> None:
    """Remove embeddings of the same collection by the same system that an older model or setting left behind."""
    prefix = folder.name.rsplit(".", 1)[0]
    for other in folder.parent.iterdir():
        if other.name != folder.name and other.name.rsplit(".", 1)[0] == prefix and (other / "settings.json").is_file():
            shutil.rmtree(other)


def _search_one(evaluation: Evaluation, benchmark: Benchmark, system: str, model: Model) -> bool:
    job = evaluation.job
    path = evaluation.run_path(benchmark, system)
    embeddings = open_embeddings(evaluation.embeddings_path(system, model, benchmark))

    def work() -> None:
        vectors = embed_checked(model.load(), list(benchmark.queries.values()), "query", job.max_query_tokens)
        run = search(embeddings, list(benchmark.queries), vectors, job.depth, benchmark.corpus)
        write_run(path, run, system)

    inputs = {
        "embeddings": embeddings.fingerprint,
        "queries": benchmark.queries,
        "model": model.fingerprint,
        "tokens": job.max_query_tokens,
        "depth": job.depth,
    }
    return run_stage(path.with_suffix(".stamp.json"), inputs, (path,), work)


def _fuse_one(evaluation: Evaluation, task: Task) -> bool:
    path, weight_path = evaluation.run_path(task.test, "fused"), _weight_path(evaluation, task)

    def work() -> None:
        chosen = _choose(evaluation, task.dev) if task.dev else UNCHOSEN
        lists = [read_run(evaluation.run_path(task.test, system)) for system in ("dense", "bm25")]
        write_json(weight_path, asdict(chosen))
        write_run(path, fuse(lists[0], lists[1], chosen.weight, evaluation.job.depth), "fused")

    inputs: dict[str, object] = {"runs": _run_hashes(evaluation, task.test), "depth": evaluation.job.depth}
    if task.dev:
        inputs |= {"dev": _run_hashes(evaluation, task.dev), "dev data": task.dev.fingerprint}
    return run_stage(path.with_suffix(".stamp.json"), inputs, (path, weight_path), work)


def _choose(evaluation: Evaluation, dev: Benchmark) -> FusionWeight:
    lists = [read_run(evaluation.run_path(dev, system)) for system in ("dense", "bm25")]
    chosen_on = f"{len(dev.queries):,} queries of {dev.name}, split {dev.split}"
    return choose_weight(lists[0], lists[1], dev.qrels, chosen_on)


def _weight_path(evaluation: Evaluation, task: Task) -> Path:
    return evaluation.run_path(task.test, "fused").with_suffix(".weight.json")


def _measure(evaluation: Evaluation) -> tuple[dict[str, dict[str, PerQuery]], dict[str, dict[str, Run]]]:
    """By collection and system: the measures of every query, and the first hits. One run is in memory at a time."""
    values: dict[str, dict[str, PerQuery]] = {}
    heads: dict[str, dict[str, Run]] = {}
    for task in evaluation.tasks:
        name = task.test.name
        for system, path in _run_paths(evaluation, task).items():
            run = read_run(path)
            values.setdefault(name, {})[system] = per_query(run, task.test.qrels)
            heads.setdefault(name, {})[system] = {query: ranking.top(HITS) for query, ranking in run.items()}
    return values, heads


def _run_paths(evaluation: Evaluation, task: Task) -> dict[str, Path]:
    return {system.key: evaluation.run_path(task.test, system.key) for system in evaluation.systems}


def _run_hashes(evaluation: Evaluation, benchmark: Benchmark) -> list[str]:
    return [sha256_file(evaluation.run_path(benchmark, system)) for system in ("dense", "bm25")]


def _report_inputs(evaluation: Evaluation) -> dict[str, object]:
    job = evaluation.job
    runs = [sha256_file(path) for task in evaluation.tasks for path in _run_paths(evaluation, task).values()]
    weights = [asdict(read_weight(evaluation, task)) for task in evaluation.tasks if job.bm25]
    data = [task.test.fingerprint for task in evaluation.tasks]
    return {
        "runs": runs,
        "weights": weights,
        "data": data,
        "title": job.title,
        "about": job.about,
        "settings": _settings(job),
        "curves": job.curves,
    }


def _settings(job: EvaluationJob) -> dict[str, object]:
    return {
        "model": job.model.name,
        "model_fingerprint": job.model.fingerprint,
        "baselines": {model.name: model.fingerprint for model in job.baselines},
        "split": job.split,
        "max_query_tokens": job.max_query_tokens,
        "max_passage_tokens": job.max_passage_tokens,
        "depth": job.depth,
        "seed": job.seed,
        "bm25": {"k1": job.bm25.k1, "b": job.bm25.b} if job.bm25 else None,
    }


def _said(done: list[bool], noun: str) -> str:
    plural = f"{noun}{'' if len(done) == 1 else 's'}"
    if not any(done):
        return f"{len(done)} {plural} unchanged, skipped"
    return f"{sum(done)} of {len(done)} {plural} made" if not all(done) else f"{len(done)} {plural} made"
