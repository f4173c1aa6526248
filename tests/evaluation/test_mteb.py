"""Our exported folders run under mteb, with the figures that `largede evaluate` gives."""

import json
from pathlib import Path
from typing import Any

import mteb
import pytest
from beir_folder import write_jsonl, write_qrels
from made_world import MadeWorld
from mteb_task import FolderTask
from sentence_transformers import SentenceTransformer

from largede.cli import main
from largede.config.recipe import ModelConfig
from largede.evaluation.mteb_model import MtebModel
from largede.models.build import build_dual_encoder, load_tokenizer
from largede.models.folder import FolderSettings, write_model_folder

NAMES = {"ndcg_at_10": "nDCG@10", "recall_at_100": "Recall@100", "mrr_at_10": "MRR@10"}


def exported(world: MadeWorld, out: Path, layout: str) -> Path:
    model = build_dual_encoder(ModelConfig(backbone="smoke", layout=layout))  # type: ignore[arg-type]
    settings = FolderSettings("cosine", 64, "ask ", "tell ", "# a card\n")
    write_model_folder(model, load_tokenizer(world.vocabulary), settings, out)
    return out


def collection_of(world: MadeWorld, folder: Path) -> Path:
    """The pairs of the world as a collection: in its own words, no two documents come out alike."""
    pairs = [json.loads(line) for line in world.pairs.read_text().splitlines()]
    titles = [f"the {i}" if i % 2 else "" for i in range(len(pairs))]
    documents = [{"_id": f"d{i}", "title": titles[i], "text": pair["positive"]} for i, pair in enumerate(pairs)]
    write_jsonl(folder / "corpus.jsonl", documents)
    write_jsonl(folder / "queries.jsonl", [{"_id": p["query_id"], "text": p["query"]} for p in pairs[:60]])
    write_qrels(folder, "test", [(p["query_id"], f"d{i}", 1 + i % 2) for i, p in enumerate(pairs[:60])])
    return folder


@pytest.mark.parametrize(("layout", "is_direct"), [("sde", True), ("sde", False), ("ade", False)])
def test_mteb_gives_the_figures_of_largede_evaluate(
    layout: str, is_direct: bool, world: MadeWorld, tmp_path: Path
) -> None:
    folder = exported(world, tmp_path / "model", layout)
    data = collection_of(world, tmp_path / "data")
    model: Any = SentenceTransformer(str(folder), device="cpu") if is_direct else MtebModel(folder, device="cpu")
    found = mteb.evaluate(model, FolderTask(data), cache=None, co2_tracker=False, show_progress_bar=False)
    (scores,) = found.task_results[0].scores["test"]
    words = ["--model", str(folder), "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(["evaluate", *words, "--no-bm25"]) == 0
    (dataset,) = json.loads((tmp_path / "out" / "results.json").read_text())["datasets"]
    for theirs, ours in NAMES.items():
        assert scores[theirs] == pytest.approx(dataset["figures"]["dense"][ours]["mean"], abs=5e-5)
    assert 0 < scores["ndcg_at_10"] < 1
