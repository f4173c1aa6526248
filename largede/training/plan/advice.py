"""Which knob to turn: other settings of the same training, tried one by one and two by two.

Every change tried here leaves the mathematics of the run as it is, but for the order of sums. What the recipe or the
engine would refuse is never advised, because every candidate goes through the same checks as any other recipe. Not
advised either: `coalesced` with bf16 parameters, which would add gradients up in bf16.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from largede.config.deepspeed import read_deepspeed_file, shipped_files, zero_settings
from largede.config.load import with_settings
from largede.config.recipe import Recipe
from largede.errors import LargedeError
from largede.training.plan.machine import Machine
from largede.training.plan.predict import Plan, predict

WORTH_SAYING = 0.03
"""Gain in time below which a change is not mentioned."""
MOST_GPUS = 1024


@dataclass(frozen=True)
class Change:
    """Dotted settings to give, by name, or another number of GPUs."""

    settings: tuple[tuple[str, Any], ...] = ()
    gpus: int | None = None
    nodes: int | None = None

    @property
    def flags(self) -> str:
        """Exactly what to add to the command."""
        words = [f"--{name} {_word(value)}" for name, value in self.settings]
        if self.gpus is not None:
            words.append(f"--gpus {self.gpus}" + (f" --nodes {self.nodes}" if self.nodes != 1 else ""))
        return " ".join(words)

    def __add__(self, other: "Change") -> "Change":
        return Change(self.settings + other.settings, other.gpus or self.gpus, other.nodes or self.nodes)


@dataclass(frozen=True)
class Advice:
    """A change and the plan it leads to."""

    change: Change
    plan: Plan


def advise(plan: Plan) -> list[Advice]:
    """Changes worth making, the best first: those that make it fit, or those that make it faster and still fit.

    To fit: fewest changes first, more GPUs last, then the fastest. To be faster: the fastest first, three at most, on
    the same GPUs.
    """
    if plan.fits:
        found = [a for a in _tried(plan, _singles_and_pairs(plan)) if a.plan.fits and _gain(plan, a) > WORTH_SAYING]
        found.sort(key=lambda advice: (advice.plan.time.step_s, len(advice.change.settings)))
        return _without_idle_parts(found)[:3]
    for changes in (_singles(plan), _pairs(plan), _more_gpus(plan)):
        fitting = [advice for advice in _tried(plan, changes) if advice.plan.fits]
        if fitting:
            return sorted(fitting, key=_cost)[:3]
    return []


def _cost(advice: Advice) -> tuple[float, ...]:
    return advice.plan.machine.gpus, len(advice.change.settings), advice.plan.time.step_s


def _gain(plan: Plan, advice: Advice) -> float:
    return 1 - advice.plan.time.step_s / plan.time.step_s


def _without_idle_parts(found: list[Advice]) -> list[Advice]:
    """Leave out pairs that are hardly faster than one of their halves."""
    alone = {a.change.settings[0]: a.plan.time.step_s for a in found if len(a.change.settings) == 1}
    return [
        a
        for a in found
        if len(a.change.settings) == 1
        or all(a.plan.time.step_s < (1 - WORTH_SAYING) * alone.get(s, float("inf")) for s in a.change.settings)
    ]


def _tried(plan: Plan, changes: Iterator[Change]) -> Iterator[Advice]:
    for change in changes:
        try:
            changed = with_settings(plan.recipe, **{n.replace(".", "__"): v for n, v in change.settings})
            yield Advice(change, predict(changed, _machine(plan.machine, change)))
        except LargedeError:
            continue  # no such run: nothing to advise


def _machine(machine: Machine, change: Change) -> Machine:
    if change.gpus is None:
        return machine
    return replace(machine, gpus=change.gpus, nodes=change.nodes or machine.nodes)


def _singles_and_pairs(plan: Plan) -> Iterator[Change]:
    yield from _singles(plan)
    yield from _pairs(plan)


def _singles(plan: Plan) -> Iterator[Change]:
    for name, values in knobs(plan.recipe).items():
        for value in values:
            yield Change(((name, value),))


def _pairs(plan: Plan) -> Iterator[Change]:
    for one, other in itertools.combinations(_singles(plan), 2):
        if one.settings[0][0] != other.settings[0][0]:
            yield one + other


def _more_gpus(plan: Plan) -> Iterator[Change]:
    """Doubled up to a node of eight, then nodes doubled; alone and with one other change."""
    gpus, nodes = plan.machine.gpus, plan.machine.nodes
    while gpus < MOST_GPUS:
        gpus *= 2
        nodes = nodes if gpus // nodes <= max(8, plan.machine.gpus_per_node) else nodes * 2
        more = Change(gpus=gpus, nodes=nodes)
        yield more
        yield from (single + more for single in _singles(plan))


def knobs(recipe: Recipe) -> dict[str, list[Any]]:
    """Other values of the settings that trade memory for time."""
    batch, engine = recipe.batch, recipe.engine
    own = zero_settings(read_deepspeed_file(engine.deepspeed))
    longest = max(recipe.data.longest_query_tokens, recipe.data.longest_passage_tokens)
    other: dict[str, list[Any]] = {
        "engine.parameters": ["resident", "regathered"],
        "engine.activation_checkpointing": [True, False],
        "engine.attention": ["auto"],
        "batch.gradient_cache": [True, False],
        "batch.chunk_tokens": [n for n in _scaled(batch.chunk_tokens) if n >= longest],
        "engine.deepspeed": [n for n in shipped_files() if _is_twin(n, own.precision)],
    }
    if own.precision != "bf16":
        other["engine.gradient_reduction"] = ["per_chunk", "coalesced"]
    if recipe.model.dropout == 0 and batch.gradient_cache:
        first = batch.no_grad_chunk_tokens or batch.chunk_tokens
        other["batch.no_grad_chunk_tokens"] = [n for n in _scaled(first) if n >= longest]
    if engine.attention != "padded" or recipe.model.dropout > 0:
        del other["engine.attention"]  # packed leaves attention-weight dropout out, which would train another model
    now = {name: getattr(getattr(recipe, name.split(".")[0]), name.split(".")[1]) for name in other}
    return {name: [v for v in values if v != now[name]] for name, values in other.items()}


def _scaled(tokens: int) -> list[int]:
    return [tokens // 8, tokens // 4, tokens // 2, tokens * 2, tokens * 4]


def _is_twin(file: str, precision: str) -> bool:
    """A shipped file for GPUs, of the same precision; NVMe is left to those who have a disk for it."""
    zero = zero_settings(read_deepspeed_file(file))
    plain = "cpu" not in file and "nvme" not in (zero.optimizer_on, zero.parameters_on)
    return plain and zero.precision == precision and zero.stage >= 2


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
