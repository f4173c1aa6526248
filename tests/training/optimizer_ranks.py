"""A made model with every kind of parameter, and made gradients, to step Adafactor with under ZeRO and beside it.

Gradients are handed to DeepSpeed exactly: the loss is the sum of parameter times gradient, so they are the same on
every rank and equal to those of the plain twin, whatever the stage.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from largede.config.load import with_settings
from largede.config.recipe import Recipe
from largede.files import write_json
from largede.training.engine import build_engine
from largede.training.slices import flat_groups

SHAPES: dict[str, tuple[int, ...]] = {
    "wide": (130, 257),
    "tall": (300, 129),
    "small_matrix": (20, 140),
    "row": (1, 150),
    "column": (200, 1),
    "vector": (333,),
    "three": (3,),
    "frozen": (40, 140),
    "projection": (140, 128),
}
"""Factored and not, sides that no number of ranks divides, fewer numbers than ranks. DeepSpeed takes no shape ()."""


class Tied(nn.Module):
    """The second user of a parameter, so that it has two names."""

    def __init__(self, shared: nn.Parameter) -> None:
        super().__init__()
        self.embed_tokens = shared


class MadeModel(nn.Module):
    """Parameters of SHAPES of very different size; the loss's gradient for each is what the caller says."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for number, (name, shape) in enumerate(SHAPES.items()):
            values = torch.randn(shape, generator=generator) * 10.0 ** (number % 4 - 3)
            setattr(self, name, nn.Parameter(values, requires_grad=name != "frozen"))
        self.tied = Tied(self.tall)

    def choose_attention(self, name: str, *, on_gpu: bool) -> None:
        """There is none; the engine asks every model."""

    def forward(self, gradients: dict[str, Tensor]) -> Tensor:
        loss = self.frozen.sum() * 0.0
        for name, gradient in gradients.items():
            loss = loss + (getattr(self, name) * gradient).sum()
        return loss


def made_gradients(step: int, names: list[str]) -> dict[str, Tensor]:
    """Gradients that differ in size by parameter and by step; at step 3 the vector's is all zero."""
    generator = torch.Generator().manual_seed(1000 + step)
    made = {}
    for number, name in enumerate(names):
        size = 10.0 ** ((number + step) % 5 - 4)
        made[name] = torch.randn(SHAPES[name], generator=generator) * size
    if step == 3:
        made["vector"] = torch.zeros(SHAPES["vector"])
    return made


def made_recipe(folder: Path, stage: int, zero: dict[str, Any] | None = None, **dotted: Any) -> Recipe:
    """Several sub-groups, nothing persistent; `zero` adds to DeepSpeed's ZeRO settings."""
    settings = {"stage": stage, "sub_group_size": 20_000, "stage3_param_persistence_threshold": 0, **(zero or {})}
    settings |= {"overlap_comm": False, "reduce_bucket_size": 30_000}
    path = folder / f"adafactor-{stage}-{'-'.join(sorted(zero or {}))}.json"
    write_json(path, {"zero_optimization": settings})
    chosen = {"batch__queries": 12, "data__lanes": 1, "optimizer__warmup_steps": 0, "optimizer__learning_rate": 0.02}
    return with_settings(Recipe(), **{**chosen, "engine__deepspeed": str(path), **dotted})


def made_engine(recipe: Recipe) -> Any:
    return build_engine(MadeModel(), recipe)  # type: ignore[arg-type]  # any module will do where no text is embedded


def trained_names(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def take_steps(engine: Any, steps: range) -> None:
    names = trained_names(engine.module)
    for step in steps:
        engine.backward(engine(made_gradients(step, names)), scale_wrt_gas=False)
        engine.step()


def whole_masters(engine: Any) -> dict[str, Tensor]:
    """Every trained parameter's master weights, put together from all ranks. Collective."""
    held = {}
    for group in flat_groups(engine):
        for part in group.slices:
            held[part.name] = (part, part.of(group.flat).clone())
    return put_together(held)


def put_together(held: dict[str, tuple[Any, Tensor]]) -> dict[str, Tensor]:
    """Whole tensors from every rank's slices of them. Collective."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, held)
    whole = {}
    for name, (own, _) in held.items():
        flat = torch.full((own.numel,), float("nan"))
        for ranks_held in everyone:
            part, values = ranks_held[name]
            flat[part.start : part.start + part.length] = values
        whole[name] = flat.view(own.shape)
    return whole


def worst_difference(ours: dict[str, Tensor], truth: dict[str, Tensor]) -> tuple[float, str]:
    """Largest |difference| in units of the parameter's root mean square, and its parameter."""
    assert set(ours) == set(truth)
    return max(
        (float((ours[name].double() - t.double()).abs().max() / t.double().square().mean().sqrt()), name)
        for name, t in truth.items()
    )
