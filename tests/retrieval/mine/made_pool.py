"""Pairs and collections to mine, and a shorthand for the whole of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from beir_folder import TOPICS, write_collection
from hash_encoder import hash_model

from data_tools.pairs import PairReader
from largede.files import read_json_object
from largede.retrieval.encoder import Model
from largede.retrieval.mine.settings import MineSettings
from largede.retrieval.mine.sources import open_source
from largede.retrieval.mine.stages import MineJob, mine
from largede.streams.pair import Pair


def write_pairs(path: Path, count: int = 48) -> Path:
    """Pairs of a few topics; a group has two pairs, and some queries have two answers, of different groups."""
    rows = []
    for i in range(count):
        topic = TOPICS[i % len(TOPICS)]
        query = f"what about the {topic} {i - 8 if i % 16 == 8 else i}"
        positive = f"The {topic} has {'very ' * (i % 5)}much to do with number {i}."
        rows.append({"query": query, "positive": positive, "title": f"{topic} {i}", "group": f"g{i // 2}"})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def mined(data: Path, out: Path, model: Model | None = None, **changes: Any) -> tuple[list[Pair], dict[str, Any]]:
    """The pairs with their negatives, and the summary."""
    settings = replace(MineSettings(ranks=(1, 20), negatives=4), **changes)
    mine(MineJob(open_source([data], "train"), model or hash_model(), out, settings), say=lambda line: None)
    return list(PairReader(sorted((out / "pairs").glob("part-*")))), read_json_object(out / "summary.json")


def collection(folder: Path, **settings: Any) -> Path:
    return write_collection(folder, splits=("train", "test"), **settings)
