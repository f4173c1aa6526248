"""A run small enough to be started many times, and its curve."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_world import MadeWorld, make_world

from data_tools.shard import shard
from data_tools.shard_settings import ShardSettings

ROOT = Path(__file__).resolve().parents[2]
STEPS = 16
# Far above what they take, for a machine that is busy with other work.
TRAINS_WITHIN_S = 300
ENDS_WITHIN_S = 90
RECIPE = """
model: {{backbone: smoke, tokenizer: {vocabulary}}}
data: {{lanes: 1, max_query_tokens: 16, max_passage_tokens: 24, workers: 0}}
batch: {{queries: 24, chunk_tokens: 600}}
optimizer: {{learning_rate: 0.01, warmup_steps: 0}}
engine: {{deepspeed: {deepspeed}, cpu_threads: 1}}
run: {{steps: {steps}, log_every: 1, checkpoint_every: 3, dry_run: false}}
"""


class SmallRun:
    """A made world with a recipe in `folder`, and the environment that the launch scripts find it in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world: MadeWorld = make_world(folder)
        (folder / "zero3.json").write_text('{"zero_optimization": {"stage": 3}}')
        self.shards = folder / "as-the-scripts-shard"
        shard([self.world.pairs], self.shards, ShardSettings())
        self.undisturbed = folder / "undisturbed"
        self.recipe = folder / "recipe.yaml"
        words = {"vocabulary": self.world.vocabulary, "deepspeed": folder / "zero3.json", "steps": STEPS}
        self.recipe.write_text(RECIPE.format(**words))
        unwanted = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "LAUNCHER")
        self.environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        self.environment |= {"LARGEDE_VENV": sys.prefix, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "train" / "figures.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["loss/contrastive"] for line in lines]


def steps_done(out: Path) -> int:
    path = out / "train" / "figures.jsonl"
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def wait_until(happened: Callable[[], object], within_s: float, story: Callable[[], str]) -> None:
    deadline = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s} s:\n{story()}")
        time.sleep(0.2)
