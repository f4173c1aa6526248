"""An Adafactor that lets a test see the gradients it was stepped with, and what one step leaves in it."""

import math
from typing import Any

import torch.distributed as dist
from batches_for_tests import MadeBatch
from optimizer_ranks import put_together
from torch import Tensor

from largede.config.recipe import Recipe
from largede.models.build import build_dual_encoder
from largede.training.adafactor import ZeroAdafactor
from largede.training.engine import build_engine
from largede.training.gradcache import GradCacheStep
from largede.training.optimizers import client_optimizer


class Recording(ZeroAdafactor):
    """Adafactor that also keeps each slice's gradient."""

    def bind(self, groups: Any) -> None:
        super().bind(groups)
        self.gradients: dict[str, tuple[Any, Tensor]] = {}

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                bound = self._bound[id(parameter)].group
                for held in bound.slices:
                    self.gradients[held.name] = (held, held.of(bound.gradient).clone())
        super().step(closure)


def gradients_of_step(recipe: Recipe, batch: MadeBatch, step_type: type[GradCacheStep] = GradCacheStep) -> Any:
    """(score, whole gradients) of one step of a fresh engine. Collective."""
    engine = build_engine(build_dual_encoder(recipe.model), recipe, optimizer_type=Recording)
    report = step_type(engine, recipe)(batch.of_rank(dist.get_rank(), dist.get_world_size()))
    engine.step()
    whole = put_together(client_optimizer(engine).gradients)
    engine.destroy()
    return report.score, whole


def worst_error(ours: dict[str, Tensor], truth: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative error of a gradient and its parameter; what is not a number counts as infinite."""
    assert set(ours) == set(truth)
    errors = {name: float((ours[name] - g).norm() / g.norm()) for name, g in truth.items()}
    return max((math.inf if math.isnan(error) else error, name) for name, error in errors.items())


class NoReplay(GradCacheStep):
    """Broken on purpose: dropout falls anew in the second pass."""

    def replay(self, side: Any, first: Any, index: int, chunk: Any) -> Tensor:
        return self.embed(side, chunk)
