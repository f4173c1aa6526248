"""Every shipped GTR recipe: its model on the meta device, its plan on the machine it is for, the settings."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_world import MadeWorld
from ranks import run_on_ranks

from largede.config.batch import BatchPlan
from largede.config.load import find_recipe, load_recipe
from largede.config.recipe import Recipe
from largede.models.build import build_structure
from largede.models.presets import KNOWN_BACKBONES
from largede.streams.chunks import TokenRows, make_packed_chunks
from largede.training.plan import Machine, predict

SIZES = ("base", "large", "xl", "xxl")
NAMES = [f"gtr-{size}-{stage}" for size in SIZES for stage in ("pretrain", "finetune", "smoke")]


def test_all_sizes_are_shipped() -> None:
    assert sorted(NAMES) == sorted(p.stem for p in find_recipe("quickstart").parent.glob("gtr-*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_embeds_on_the_meta_device(name: str) -> None:
    """All of the real size, and no memory is taken: the published checkpoint's shape stands in for its weights."""
    config = load_recipe(name).model
    config = replace(config, backbone=KNOWN_BACKBONES.get(config.backbone, config.backbone))
    model = build_structure(config, torch.device("meta"))
    # Packed, because SDPA's mask looks at values, and there are none here.
    model.choose_attention("packed", on_gpu=False)
    [chunk] = make_packed_chunks(TokenRows.of([[5, 6, 7], [8, 9]]), 128)
    for side in ("query", "passage"):
        embedding = model(side, *chunk.to(torch.device("meta")).inputs)
        assert embedding.shape == (2, 768)
        assert embedding.device.type == "meta"


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("smoke")])
@pytest.mark.parametrize("machine", [Machine(gpus=64, nodes=8), Machine(gpus=8)])
def test_a_shipped_recipe_fits_the_machine_it_is_made_for(name: str, machine: Machine) -> None:
    plan = predict(load_recipe(name), machine)
    print(name, machine.gpus, *plan.memory_lines()[-1:])
    assert plan.fits


@pytest.mark.parametrize("size", SIZES)
def test_settings_are_the_papers(size: str) -> None:
    first, second = load_recipe(f"gtr-{size}-pretrain"), load_recipe(f"gtr-{size}-finetune")
    for recipe in (first, second):
        assert (recipe.batch.queries, recipe.loss.temperature, recipe.model.embedding_dim) == (2048, 0.01, 768)
        assert recipe.loss.passage_to_query and recipe.model.similarity == "cosine" and recipe.model.layout == "sde"
        optimizer = recipe.optimizer
        assert (optimizer.name, optimizer.learning_rate, optimizer.warmup_steps) == ("adafactor", 1e-3, 1000)
        assert optimizer.clip_norm is None and optimizer.schedule == "linear"
        assert BatchPlan(recipe.batch.queries, 64).counts == (32,) * 64
    assert (first.run.steps, first.model.dropout, first.data.hard_negatives) == (800_000, 0.0, 0)
    assert (second.run.steps, second.model.dropout, second.data.hard_negatives) == (20_000, 0.1, 1)


def run_smoke(recipe: Recipe) -> list[str]:
    from largede.training.trainer import Trainer

    lines: list[str] = []
    trainer = Trainer(recipe, lines.append)
    trainer.run()
    trainer.engine.destroy()
    return lines


@pytest.mark.slow
def test_a_smoke_recipe_trains_on_two_ranks(world: MadeWorld, tmp_path: Path) -> None:
    """Base here; `bash launch/smoke.sh SIZE` for the others, which need gigabytes."""
    flags = {"model.tokenizer": world.vocabulary, "data.shards": world.shards, "run.out": tmp_path / "run"}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    recipe = load_recipe("gtr-base-smoke", words)
    lines = run_on_ranks(2, run_smoke, tmp_path, recipe)[0]
    assert lines[0].startswith("training gtr-base")
    assert lines[1].startswith("dry run: the largest step fits")
    assert lines[-1].startswith("done: 3 steps")
    assert (tmp_path / "run/checkpoints/step-00000003/state.json").is_file()
