"""A folder in BEIR format as a task of mteb; nothing is downloaded."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from largede.retrieval.corpus import open_benchmark


class FolderTask(AbsTaskRetrieval):
    ignore_identical_ids = True
    metadata = TaskMetadata(
        name="FolderTask",
        description="a folder in BEIR format",
        dataset={"path": "none", "revision": "none"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.benchmark = open_benchmark(folder, "test")

    def load_data(self, num_proc: int | None = None, **unused: Any) -> None:
        documents = [{"id": d.id, "title": d.title, "text": d.text} for d in self.benchmark.corpus.documents()]
        queries = [{"id": id_, "text": text} for id_, text in self.benchmark.queries.items()]
        parts = {"corpus": Dataset.from_list(documents), "queries": Dataset.from_list(queries), "top_ranked": None}
        self.dataset = {"default": {"test": {**parts, "relevant_docs": self.benchmark.qrels}}}
        self.data_loaded = True
