"""The optimizer under ZeRO equals its plain single-process twin, on one, two and three ranks.

The step's gradients have a matrix of their own: test_exactness.py.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from batches_for_tests import MadeBatch, small_recipe
from ranks import run_on_ranks
from recording import Recording
from torch import Tensor

from largede.models.build import build_dual_encoder
from largede.training.adafactor import PlainAdafactor
from largede.training.checkpoint import client_optimizer
from largede.training.engine import build_engine
from largede.training.gradcache import GradCacheStep
from largede.training.slices import flat_groups

HARD_NEGATIVES = 3


def whole_gradients(recorded: dict[str, tuple[Any, Tensor]]) -> dict[str, Tensor]:
    """Put the slices of all ranks together."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, recorded)
    whole = {}
    for name, (held, _) in recorded.items():
        flat = torch.full((held.numel,), float("nan"))
        for ranks_slices in everyone:
            part, values = ranks_slices[name]
            flat[part.start : part.start + part.length] = values
        whole[name] = flat.view(held.shape)
    return whole


def check_adafactor(folder: Path, stage: int) -> tuple[float, float]:
    """After ten steps given the same gradients: worst |difference| / RMS of a parameter; state bytes / parameter."""
    recipe = small_recipe(folder, stage, optimizer__learning_rate=0.02)
    twin = build_dual_encoder(recipe.model)
    twin_optimizer = PlainAdafactor(twin.parameters(), lr=0.02)
    engine = build_engine(build_dual_encoder(recipe.model), recipe, optimizer_type=Recording)
    step = GradCacheStep(engine, recipe)
    for number in range(10):
        step(
            MadeBatch(recipe.batch.queries, HARD_NEGATIVES, seed=number).of_rank(dist.get_rank(), dist.get_world_size())
        )
        engine.step()
        gradients = whole_gradients(client_optimizer(engine).gradients)
        for name, parameter in twin.named_parameters():
            parameter.grad = gradients[name]
        twin_optimizer.step()
    masters = {h.name: (h, h.of(g.flat).clone()) for g in flat_groups(engine) for h in g.slices}
    ours = whole_gradients(masters)
    worst = max(
        float((ours[name] - p.detach()).abs().max() / p.detach().square().mean().sqrt())
        for name, p in twin.named_parameters()
    )
    state = client_optimizer(engine).state_bytes() / sum(p.numel() for p in twin.parameters())
    engine.destroy()
    return worst, state


def check_stages(folder: str) -> dict[int, tuple[float, float]]:
    return {stage: check_adafactor(Path(folder), stage) for stage in (0, 1, 2, 3)}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_optimizer_equals_its_plain_twin(world: int, tmp_path: Path) -> None:
    for stage, (error, state) in run_on_ranks(world, check_stages, tmp_path, str(tmp_path))[0].items():
        print(f"W={world} ZeRO-{stage} Adafactor: {error:.1e} of RMS, {state:.3f} state bytes per parameter")
        assert error < 1e-6, stage
