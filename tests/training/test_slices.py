"""The gradient that is stepped is that of this step alone, for both towers, at every step, offloaded or not, under hpZ.

Two towers are the hard case: the query calls of a step never reach the passage tower, nor the passage calls the other.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch.distributed as dist
from batches_for_tests import MadeBatch, small_recipe
from optimizer_ranks import put_together, whole_masters
from ranks import run_on_ranks
from recording import Recording

from largede.config.load import with_settings
from largede.config.recipe import Recipe
from largede.files import write_json
from largede.models.build import build_dual_encoder
from largede.training import gradcache
from largede.training.engine import build_engine
from largede.training.gradcache import GradCacheStep
from largede.training.optimizers import client_optimizer
from largede.training.slices import flat_groups, spread_master_weights

OFFLOADED = {"offload_optimizer": {"device": "cpu", "pin_memory": False}}
PARAMETERS_TOO = {**OFFLOADED, "offload_param": {"device": "cpu", "pin_memory": False}}
CASES: list[tuple[int, dict[str, Any]]] = [
    (1, {}),
    (2, {}),
    (2, OFFLOADED),
    (3, {}),
    (3, OFFLOADED),
    (3, PARAMETERS_TOO),
]
STEPS = 3


def two_tower_recipe(folder: Path, stage: int, zero: dict[str, Any]) -> Recipe:
    recipe = small_recipe(folder, stage, model__layout="ade")
    config = json.loads(Path(recipe.engine.deepspeed).read_text())
    path = folder / f"towers-{stage}-{'-'.join(sorted(zero))}.json"
    write_json(path, {"zero_optimization": {**config["zero_optimization"], **zero}})
    return with_settings(recipe, engine__deepspeed=str(path))


def worst_gradients(recipe: Recipe, change_weights_at: int | None = None) -> list[float]:
    """Worst relative error of a gradient at each step against the plain twin, which is given the same weights."""
    twin = build_dual_encoder(recipe.model)
    engine = build_engine(build_dual_encoder(recipe.model), recipe, optimizer_type=Recording)
    step, errors = GradCacheStep(engine, recipe), []
    for number in range(STEPS):
        if number == change_weights_at:
            for group in flat_groups(engine):
                group.flat.mul_(0.7)
            spread_master_weights(engine)
        weights = whole_masters(engine)
        for name, parameter in twin.named_parameters():
            parameter.data.copy_(weights[name])
        batch = MadeBatch(recipe.batch.queries, 2, seed=number)
        twin.zero_grad()
        batch.plain_loss(twin, recipe).backward()
        step(batch.of_rank(dist.get_rank(), dist.get_world_size()))
        engine.step()
        ours = put_together(client_optimizer(engine).gradients)
        truth = {name: parameter.grad for name, parameter in twin.named_parameters()}
        errors.append(max(float((ours[n] - g).norm() / g.norm()) for n, g in truth.items() if g is not None))
    engine.destroy()
    return errors


def both_ways(folder: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """With the gradient kept to its step, and with that switched off."""
    recipes = {f"ZeRO-{stage} {' '.join(zero)}": two_tower_recipe(Path(folder), stage, zero) for stage, zero in CASES}
    right = {name: worst_gradients(recipe) for name, recipe in recipes.items()}
    original, gradcache.gradient_of_step = gradcache.gradient_of_step, lambda engine: contextlib.nullcontext()
    try:
        wrong = {name: worst_gradients(recipe) for name, recipe in recipes.items() if name >= "ZeRO-2 o"}
    finally:
        gradcache.gradient_of_step = original
    return right, wrong


def test_two_towers_have_the_right_gradient_at_every_step(tmp_path: Path) -> None:
    right, wrong = run_on_ranks(2, both_ways, tmp_path, str(tmp_path))[0]
    for name, errors in right.items():
        print(f"{name}: {', '.join(f'{error:.1e}' for error in errors)}")
        assert max(errors) < 1e-5, name
    assert set(wrong) == {name for name in right if name >= "ZeRO-2 o"}
    for name, errors in wrong.items():
        print(f"{name}, not kept to its step: {', '.join(f'{error:.1e}' for error in errors)}")
        assert max(errors) > 0.1, name


def under_hpz(folder: str) -> tuple[list[float], int]:
    recipe = two_tower_recipe(Path(folder), 3, {"zero_hpz_partition_size": 2})
    errors = worst_gradients(recipe, change_weights_at=0)
    from deepspeed.utils import groups

    return errors, dist.get_world_size(groups._get_zero_param_intra_parallel_group())


def test_hpz_has_the_right_gradient_also_after_weights_were_loaded(tmp_path: Path) -> None:
    """Two pairs of ranks; loading must reach the second copy that each pair has kept since the model was cut."""
    errors, pair = run_on_ranks(4, under_hpz, tmp_path, str(tmp_path))[0]
    print(f"hpZ: {', '.join(f'{error:.1e}' for error in errors)}")
    assert pair == 2
    assert max(errors) < 1e-5
