"""Every shipped DeepSpeed file takes a step on two ranks, with float32 masters, and sets nothing the recipe owns."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from batches_for_tests import MadeBatch, small_recipe
from ranks import run_on_ranks

from largede.config.batch import BatchPlan
from largede.config.load import with_settings
from largede.errors import RecipeError
from largede.models.build import build_dual_encoder
from largede.training.engine import OWNED_BY_RECIPE, build_engine, deepspeed_config, find_deepspeed_file
from largede.training.gradcache import GradCacheStep
from largede.training.slices import flat_groups

SHIPPED = sorted(p.name for p in find_deepspeed_file("zero3.json").parent.glob("*.json"))


def one_step_each(folder: str) -> dict[str, Any]:
    """Loss, what a master weight is stored in, and how far the first parameter moved."""
    found = {}
    for name in SHIPPED:
        recipe = with_settings(small_recipe(Path(folder)), engine__deepspeed=name, optimizer__learning_rate=0.01)
        engine = build_engine(build_dual_encoder(recipe.model), recipe)
        groups = flat_groups(engine)
        before = groups[0].flat.clone()
        batch = MadeBatch(recipe.batch.queries, 2).of_rank(dist.get_rank(), dist.get_world_size())
        report = GradCacheStep(engine, recipe)(batch)
        engine.step()
        moved = float((groups[0].flat - before).abs().max())
        found[name] = (report.score.loss, str(groups[0].flat.dtype), moved)
        engine.destroy()
    return found


def test_every_file_takes_a_step(tmp_path: Path) -> None:
    found = run_on_ranks(2, one_step_each, tmp_path, str(tmp_path))[0]
    assert set(found) == set(SHIPPED) >= {"zero1.json", "zero2.json", "zero3.json", "zero3_bf16.json"}
    exact = found["zero3.json"][0]
    for name, (loss, dtype, moved) in found.items():
        assert abs(loss - exact) < (0.5 if "bf16" in name else 1e-4), (name, loss, exact)
        assert dtype == "torch.float32", name
        assert 0 < moved < 1, name


@pytest.mark.parametrize("key", sorted(OWNED_BY_RECIPE))
def test_a_file_that_sets_what_the_recipe_owns_is_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({key: 1}))
    recipe = with_settings(small_recipe(tmp_path), engine__deepspeed=str(path))
    with pytest.raises(RecipeError, match=f"sets {key}"):
        deepspeed_config(recipe, BatchPlan(recipe.batch.queries, 1))


def test_clipping_is_off_unless_asked_for(tmp_path: Path) -> None:
    """DeepSpeed clips at 1.0 when nothing is said."""
    recipe = small_recipe(tmp_path)
    plan = BatchPlan(recipe.batch.queries, 2)
    assert deepspeed_config(recipe, plan)["gradient_clipping"] == 0.0
    assert deepspeed_config(with_settings(recipe, optimizer__clip_norm=0.5), plan)["gradient_clipping"] == 0.5


def test_a_file_that_is_not_there_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="zero3_bf16.json"):
        find_deepspeed_file("zero9.json")
