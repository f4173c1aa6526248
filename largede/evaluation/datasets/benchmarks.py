"""A collection's files, checked and open: what is reported, what may be tuned on, and answers where there are some."""

from dataclasses import dataclass, replace
from pathlib import Path

from largede.evaluation.datasets.collection import Collection
from largede.evaluation.measures.answers import open_answers
from largede.files import fingerprint_of
from largede.retrieval.corpus import Benchmark, Corpus, open_benchmark, open_corpus, open_queries


@dataclass(frozen=True)
class Opened:
    """`test` and `dev` bear the collection's name, not the folder's: two collections may share a folder.

    `answers` are None for a collection with qrels. With answers the qrels of `test` are empty, and `fingerprint` is of
    everything that figures depend on, answers included.
    """

    collection: Collection
    test: Benchmark
    dev: Benchmark | None
    answers: dict[str, list[str]] | None

    @property
    def fingerprint(self) -> str:
        if self.answers is None:
            return self.test.fingerprint
        return fingerprint_of([self.test.fingerprint, self.answers])


def open_collection(collection: Collection, corpora: dict[Path, Corpus] | None = None) -> Opened:
    """Open a collection. Raises DataError for whatever is wrong with its files.

    `corpora` holds corpora that are open already, by their real path, and is added to: MS MARCO and the Deep Learning
    tracks share one of 8.8 million passages.
    """
    corpus = _corpus(collection.folder / "corpus.jsonl", {} if corpora is None else corpora)
    if collection.has_answers:
        queries = open_queries(collection.folder / "queries.jsonl")
        test = Benchmark(collection.name, collection.split, corpus, queries, {})
        return Opened(collection, test, None, open_answers(collection.folder))
    splits = (collection.split, *([collection.dev_split] if collection.dev_split else []))
    test, *dev = (replace(open_benchmark(collection.folder, split, corpus), name=collection.name) for split in splits)
    return Opened(collection, test, dev[0] if dev else None, None)


def _corpus(path: Path, corpora: dict[Path, Corpus]) -> Corpus:
    real = path.resolve()
    if real not in corpora:
        corpora[real] = open_corpus(path)
    return corpora[real]
