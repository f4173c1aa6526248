"""The optimizer of a recipe: which parameters it trains, at which multiple of the rate, and its rate at each step."""

import difflib

import torch
from torch import nn

from largede.config.recipe import OptimizerConfig
from largede.errors import RecipeError
from largede.training.adafactor import ZeroAdafactor


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
    """Trainable parameters by their factor on the rate, in the model's order; factor 0 freezes.

    A parameter takes the factor of the first part that occurs in its name, else 1. A tied parameter has all its names.
    """
    names = _names_of(model)
    _refuse_parts_without_effect(factors, names)
    by_factor: dict[float, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        factor = next((factors[part] for part in factors if _is_in(part, names[id(parameter)])), 1.0)
        if factor == 0.0:
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            by_factor.setdefault(factor, []).append(parameter)
    if not by_factor:
        raise RecipeError(
            f"optimizer.rate_factors {factors} freezes every parameter",
            expected="something left to train",
            mend="leave out a part whose factor is 0",
        )
    return [{"params": parameters, "rate_factor": factor} for factor, parameters in by_factor.items()]


def _names_of(model: nn.Module) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def _is_in(part: str, names: list[str]) -> bool:
    return any(part in name for name in names)


def _refuse_parts_without_effect(factors: dict[str, float], names: dict[int, list[str]]) -> None:
    left = dict(names)
    for part in factors:
        matching = [key for key, own in names.items() if _is_in(part, own)]
        if not matching:
            words = sorted({word for own in names.values() for name in own for word in name.split(".")})
            near = difflib.get_close_matches(part, words, n=3, cutoff=0.4) or words[:3]
            raise RecipeError(
                f"optimizer.rate_factors names {part!r}, which occurs in no parameter's name",
                expected="a part of a parameter's name",
                mend=f"did you mean {', '.join(near)}?",
            )
        if not any(key in left for key in matching):
            raise RecipeError(
                f"optimizer.rate_factors {part!r} comes after parts that take all of its parameters",
                expected="the first part that occurs in a name to be the one that counts",
                mend=f"put {part!r} before them, or leave it out",
            )
        for key in matching:
            left.pop(key, None)
