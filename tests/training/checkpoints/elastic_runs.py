"""Runs on any number of ranks and at any ZeRO stage that begin at a checkpoint of another: who saves, who goes on.

For each optimizer there is one uninterrupted run of 1, 2, 3 and 4 ranks, each at a stage of its own, and each is
continued from its checkpoint by 1, 2, 3 and 4 ranks at such stages that all 16 pairs of ranks and all 16 pairs of
stages occur. These 32 resumes are cut into two halves, in each of which the two optimizers together still have all
pairs of both; one half is tested always.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from batches_for_tests import small_recipe
from made_world import MadeWorld

from largede.config.recipe import Recipe
from largede.training.trainer import Trainer

SAVED_AT, END = 6, 26
RANKS = (1, 2, 3, 4)
OPTIMIZERS = {"adafactor": 1e-3, "adamw": 1e-4}
"""Name and learning rate; each is still warming up where the run is saved."""


@dataclass(frozen=True)
class Place:
    """Who runs: an optimizer on so many ranks at a ZeRO stage."""

    optimizer: str
    ranks: int
    stage: int

    @property
    def name(self) -> str:
        return f"{self.optimizer} on {self.ranks} at ZeRO-{self.stage}"


def savers(optimizer: str) -> list[Place]:
    """Four runs: each number of ranks and each stage once."""
    turn = list(OPTIMIZERS).index(optimizer)
    return [Place(optimizer, ranks, (ranks + turn) % 4) for ranks in RANKS]


def successors(saver: Place) -> list[Place]:
    """Four runs that go on from one: each number of ranks and each stage once."""
    return [Place(saver.optimizer, ranks, (saver.ranks + ranks) % 4) for ranks in RANKS]


Pair = tuple[Place, Place]
"""Who saves, and who goes on."""


def half_of(pair: Pair) -> int:
    before, after = pair
    return (before.ranks + after.ranks + list(OPTIMIZERS).index(before.optimizer)) % 2


PAIRS: list[Pair] = [(before, after) for name in OPTIMIZERS for before in savers(name) for after in successors(before)]
HALF = [pair for pair in PAIRS if half_of(pair) == 0]
OTHER_HALF = [pair for pair in PAIRS if half_of(pair) == 1]


def recipe_for(world: MadeWorld, folder: Path, out: str, place: Place, **dotted: Any) -> Recipe:
    settings: dict[str, Any] = {
        "model__tokenizer": str(world.vocabulary),
        "model__layers": 1,
        "data__shards": str(world.shards),
        "data__lanes": 2,
        "data__hard_negatives": 1,
        "batch__queries": 16,
        "batch__chunk_tokens": 120,
        "optimizer__name": place.optimizer,
        "optimizer__learning_rate": OPTIMIZERS[place.optimizer],
        "optimizer__warmup_steps": 10,
        "run__out": str(folder / out),
        "run__steps": END,
        "run__log_every": 1,
        "run__checkpoint_every": SAVED_AT,
        "run__keep_checkpoints": 10,
        "run__dry_run": False,
    }
    return small_recipe(folder, place.stage, **{**settings, **dotted})


def train(recipe: Recipe) -> None:
    trainer = Trainer(recipe, lambda line: None)
    try:
        trainer.run()
    finally:
        trainer.engine.destroy()
    dist.barrier()


def go_on(begun: Path, recipe: Recipe) -> None:
    """Train in the folder of `recipe` from the checkpoint that the run `begun` saved in its middle."""
    if dist.get_rank() == 0:
        name = f"checkpoints/step-{SAVED_AT:08d}"
        shutil.copytree(begun / name, Path(recipe.run.out) / name)
    dist.barrier()
    train(recipe)


def losses(out: Path, end: int = END) -> list[float]:
    """The loss of each step beyond the checkpoint in the middle, to the end."""
    rows = [json.loads(line) for line in (out / "figures.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {row["step"]: row["loss/contrastive"] for row in rows if row["step"] > SAVED_AT}
    assert list(found) == list(range(SAVED_AT + 1, end + 1))
    return list(found.values())


def save_all(folder: str, world: MadeWorld) -> None:
    """The uninterrupted runs of this number of ranks."""
    for place in (place for name in OPTIMIZERS for place in savers(name)):
        if place.ranks == dist.get_world_size():
            train(recipe_for(world, Path(folder), place.name, place))


def continue_all(folder: str, world: MadeWorld, pairs: list[Pair]) -> None:
    """The runs that this number of ranks takes over."""
    path = Path(folder)
    for before, after in pairs:
        out = f"{before.name}, then {after.name}"
        go_on(path / before.name, recipe_for(world, path, out, after, run__checkpoint_every=END))
