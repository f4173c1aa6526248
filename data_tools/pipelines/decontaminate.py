"""`largede-data decontaminate`: no training pair shares a run of words with a test query or one of its passages.

Test texts are the judged queries of BEIR-format folders and the documents judged relevant. Two texts overlap when they
share a run of `ngram` words. A text with fewer words is one run: a test text of `shortest_run` words or more overlaps
what holds it whole, a test query of `shortest_query` words or more a training query that does, and what is shorter
still, or a short training text, overlaps texts of the very same words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from data_tools.inputs import InputFile
from data_tools.pipelines.job import Plan
from data_tools.pipelines.overlap import PASSAGE, QUERY, BenchmarkText, OverlapIndex, RunLengths, write_index
from data_tools.pipelines.ranges import demand
from data_tools.pipelines.steps import Drop, Judge
from data_tools.pipelines.words import words
from data_tools.pipelines.work import Stage
from largede.errors import DataError
from largede.files import read_json_object, write_json
from largede.retrieval.corpus import open_benchmark
from largede.streams.pair import Pair
from largede.text import passage_text

NEGATIVE = "negative"


@dataclass(frozen=True)
class DecontaminateSettings:
    """Lengths in words. With `queries_only` the relevant passages of the test collections are not looked at.

    8 and 13 are the bounds between which GPT-3 chose its lengths (Brown et al. 2020, appendix C). Test queries are
    often shorter than either; a training query that says all of one and little more asks the same.
    """

    ngram: int = 13
    shortest_run: int = 8
    shortest_query: int = 4
    queries_only: bool = False
    split: str = "test"

    def __post_init__(self) -> None:
        demand(self, ["ngram", "shortest_run", "shortest_query"], lambda count: count >= 2, "2 words or more")


def decontaminate_plan(against: Sequence[Path], settings: DecontaminateSettings, skip_bad: int = 0) -> Plan:
    """Raises DataError when a folder is no BEIR-format folder, or two have the same name."""
    folders = [folder.resolve() for folder in against]
    if len({folder.name for folder in folders}) != len(folders):
        raise DataError(
            "two folders of --against have the same name",
            expected="collections that the report can tell apart by the names of their folders",
            mend="rename one, or name it once",
        )
    files = [folder / name for folder in folders for name in _files(settings.split)]
    for path in files:
        if not path.is_file():
            raise DataError(f"there is no {path}", expected="a folder in BEIR format", mend="correct --against")
    return Plan(
        "decontaminate",
        asdict(settings) | {"against": [str(folder) for folder in folders]},
        partial(_judges, settings),
        partial(_stages, folders, settings),
        facts=_facts,
        also_reads=files,
        skip_bad=skip_bad,
    )


def _files(split: str) -> tuple[str, ...]:
    return "corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv"


def _stages(folders: list[Path], settings: DecontaminateSettings, work: Path, parts: list[InputFile]) -> list[Stage]:
    return [Stage("index", 1, [IndexTests(folders, settings, work / "index")])]


def _judges(settings: DecontaminateSettings, work: Path) -> list[Judge]:
    return [Overlaps(work / "index")]


class IndexTests(PipelineStep):
    """Reads the test collections into the index, and counts what is in it."""

    type, name = "decontaminate", "index of test texts"

    def __init__(self, folders: list[Path], settings: DecontaminateSettings, index: Path) -> None:
        super().__init__()
        self.folders = folders
        self.settings = settings
        self.index = index

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        counts: dict[str, dict[str, int]] = {}

        def counted() -> Iterator[BenchmarkText]:
            for folder in self.folders:
                for text in test_texts(folder, self.settings):
                    kinds = counts.setdefault(text.collection, {QUERY: 0, PASSAGE: 0})
                    kinds[text.kind] += 1
                    yield text

        chosen = self.settings
        write_index(counted(), RunLengths(chosen.ngram, chosen.shortest_run, chosen.shortest_query), self.index)
        write_json(self.index / "counts.json", counts)


def test_texts(folder: Path, settings: DecontaminateSettings) -> Iterator[BenchmarkText]:
    """The judged queries of one collection, then its relevant documents, each once."""
    benchmark = open_benchmark(folder, settings.split)
    for id_, text in benchmark.queries.items():
        yield BenchmarkText(benchmark.name, QUERY, id_, text)
    if settings.queries_only:
        return
    relevant = {id_ for grades in benchmark.qrels.values() for id_, grade in grades.items() if grade > 0}
    for id_, document in benchmark.corpus.lookup(relevant).items():
        yield BenchmarkText(benchmark.name, PASSAGE, id_, document.contents)


class Overlaps(Judge):
    """Drops a pair when its query, passage or a negative overlaps a test text; the first found is the reason."""

    name = "overlap with test texts"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._index: OverlapIndex | None = None

    def prepare(self, rank: int) -> None:
        self._index = OverlapIndex(self.folder)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_index": None}

    def judge(self, pair: Pair, row: int) -> Drop | None:
        assert self._index is not None, "prepare comes first"
        drop, collections = None, []
        for side, text in _texts(pair):
            for collection, overlap in self._index.overlaps(words(text), side == QUERY).items():
                test = overlap.test
                if drop is None:
                    where = "short test query inside" if overlap.short_inside else f"test {test.kind} in"
                    reason = f"{collection}: {where} training {side}"
                    detail = {"shared words": overlap.run, "test": {"id": test.id, test.kind: test.text[:700]}}
                    drop = reason, detail
                collections.append(collection)
        if drop is None:
            return None
        return Drop(*drop, also=tuple(f"pairs that overlap {name}" for name in dict.fromkeys(collections)))


def _texts(pair: Pair) -> Iterator[tuple[str, str]]:
    yield QUERY, pair.query
    yield PASSAGE, passage_text(pair.title, pair.positive)
    titles = pair.negative_titles or ("",) * len(pair.negatives)
    for title, text in zip(titles, pair.negatives, strict=True):
        yield NEGATIVE, passage_text(title, text)


def _facts(work: Path, parts: list[InputFile]) -> dict[str, Any]:
    index = read_json_object(work / "index" / "index.json")
    facts: dict[str, Any] = {
        f"texts of {name}": f"{kinds[QUERY]:,} queries, {kinds[PASSAGE]:,} relevant passages"
        for name, kinds in read_json_object(work / "index" / "counts.json").items()
    }
    return facts | {
        "runs of words in the index": f"{index['runs']:,} of {index['lengths'][0]} words (or whole shorter texts)",
        "memory of the index, shared by the tasks of a machine": f"{index['bytes'] / 2**20:.1f} MiB",
    }
