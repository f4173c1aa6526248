"""The optimizer of a recipe: which parameters it trains, at which multiple of the rate, and its rate at each step."""

from typing import Any

import torch
from torch import nn

from largede.config.recipe import OptimizerConfig
from largede.training.adafactor import ZeroAdafactor
from largede.training.rate_factors import Named, factors_of


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, adafactor: type[ZeroAdafactor] = ZeroAdafactor
) -> torch.optim.Optimizer:
    """Freeze what `rate_factors` freezes, and make the optimizer of the rest, one group of parameters per factor.

    Raises:
        RecipeError: a part of a name in `rate_factors` has no effect, or nothing is left to train.
    """
    groups = parameter_groups(model, config.rate_factors)
    optimizer: torch.optim.Optimizer
    if config.name == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    else:
        optimizer = adafactor(
            groups,
            lr=config.learning_rate,
            decay_exponent=config.decay_exponent,
            update_clip=config.update_clip,
            factor_from=config.factor_from,
        )
    set_learning_rate(optimizer, config.learning_rate)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its multiple of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)


def parameter_groups(model: nn.Module, factors: dict[str, float]) -> list[dict[str, object]]:
    """Trainable parameters by their factor on the rate, in the model's order; factor 0 freezes."""
    names = _names_of(model)
    parameters = list(model.parameters())
    by_factor: dict[float, list[nn.Parameter]] = {}
    named = [Named(tuple(names[id(parameter)]), parameter.requires_grad) for parameter in parameters]
    for parameter, factor in zip(parameters, factors_of(named, factors), strict=True):
        if factor == 0.0:
            parameter.requires_grad_(False)
        else:
            by_factor.setdefault(factor, []).append(parameter)
    return [{"params": parameters, "rate_factor": factor} for factor, parameters in by_factor.items()]


def _names_of(model: nn.Module) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def client_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The optimizer we gave to DeepSpeed, below its wrapper."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)
