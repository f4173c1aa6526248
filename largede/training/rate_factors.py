"""`optimizer.rate_factors`: which parameter learns at which multiple of the rate. Training and the plan ask here."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from largede.errors import RecipeError


@dataclass(frozen=True)
class Named:
    """A parameter's names in the model (a tied one has several), and whether the model trains it at all."""

    names: tuple[str, ...]
    trained: bool = True


def factors_of(parameters: Sequence[Named], factors: Mapping[str, float]) -> list[float]:
    """The factor of each parameter, 0 where it is frozen: that of the first part that occurs in a name of it, else 1.

    Raises:
        RecipeError: a part has no effect, or nothing is left to train.
    """
    _refuse_parts_without_effect(factors, [parameter.names for parameter in parameters])
    found = [
        next((factor for part, factor in factors.items() if _is_in(part, parameter.names)), 1.0)
        if parameter.trained
        else 0.0
        for parameter in parameters
    ]
    if not any(found):
        raise RecipeError(
            f"optimizer.rate_factors {dict(factors)} freezes every parameter",
            expected="something left to train",
            mend="leave out a part whose factor is 0",
        )
    return found


def _is_in(part: str, names: tuple[str, ...]) -> bool:
    return any(part in name for name in names)


def _refuse_parts_without_effect(factors: Mapping[str, float], names: Sequence[tuple[str, ...]]) -> None:
    left = set(range(len(names)))
    for part in factors:
        matching = {number for number, own in enumerate(names) if _is_in(part, own)}
        if not matching:
            words = sorted({word for own in names for name in own for word in name.split(".")})
            near = difflib.get_close_matches(part, words, n=3, cutoff=0.4) or words[:3]
            raise RecipeError(
                f"optimizer.rate_factors names {part!r}, which occurs in no parameter's name",
                expected="a part of a parameter's name",
                mend=f"did you mean {', '.join(near)}?",
            )
        if not matching & left:
            raise RecipeError(
                f"optimizer.rate_factors {part!r} comes after parts that take all of its parameters",
                expected="the first part that occurs in a name to be the one that counts",
                mend=f"put {part!r} before them, or leave it out",
            )
        left -= matching
