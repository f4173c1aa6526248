"""A recipe and a machine into a plan."""

from dataclasses import dataclass
from typing import Any

from largede.config.batch import BatchPlan
from largede.config.recipe import Recipe
from largede.training.deepspeed_settings import checked_settings
from largede.training.plan.duration import BYTES_PER_TOKEN, StepTime, mean_tokens, step_time
from largede.training.plan.machine import GIB, Machine
from largede.training.plan.memory import Bytes, Setup, bytes_at_moments, host_bytes, saving_bytes, setup_of

DAY_S = 86_400


@dataclass(frozen=True)
class Plan:
    """What `predict` found. `moments` are bytes on one GPU by kind, at each moment of the step; the fullest counts."""

    recipe: Recipe
    machine: Machine
    setup: Setup
    moments: dict[str, Bytes]
    host_bytes_per_node: float
    time: StepTime

    @property
    def peak_moment(self) -> str:
        return max(self.moments, key=lambda moment: sum(self.moments[moment].values()))

    @property
    def memory(self) -> Bytes:
        """Bytes on one GPU by kind at the fullest moment."""
        return self.moments[self.peak_moment]

    @property
    def peak_bytes(self) -> float:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Tensors and reserve within the GPU, and what main memory has to hold within it, where its size is known."""
        host = self.machine.host_gib
        fits_host = host is None or self.host_bytes_per_node <= host * GIB
        return self.free_bytes >= 0 and fits_host

    @property
    def free_bytes(self) -> float:
        return (self.machine.gpu_gib - self.machine.reserve_gib) * GIB - self.peak_bytes

    @property
    def pairs_per_s(self) -> float:
        return self.recipe.batch.queries / self.time.step_s

    @property
    def days(self) -> float:
        return self.recipe.run.steps * self.time.step_s / DAY_S

    @property
    def pairs(self) -> int:
        return self.recipe.run.steps * self.recipe.batch.queries

    @property
    def tokens(self) -> float:
        """Real tokens of the whole run."""
        query, passage = mean_tokens(self.setup, self.machine)
        return self.pairs * (query + passage * (1 + self.recipe.data.hard_negatives))

    @property
    def text_bytes(self) -> float:
        return self.tokens * BYTES_PER_TOKEN

    @property
    def model_flop_utilisation(self) -> float:
        return self.time.model_flops / self.time.step_s / (self.machine.gpu_tflops * 1e12)

    def memory_lines(self) -> list[str]:
        from largede.training.plan.report import memory_lines

        return memory_lines(self)

    def lines(self) -> list[str]:
        from largede.training.plan.report import plan_lines

        return plan_lines(self)

    def as_json(self) -> dict[str, Any]:
        from largede.training.plan.report import plan_json

        return plan_json(self)


def predict(recipe: Recipe, machine: Machine) -> Plan:
    """Plan a recipe on a machine, one rank per GPU. Pure, and quick enough to be asked hundreds of times.

    Raises:
        RecipeError: more ranks than queries, a DeepSpeed file that cannot be read, or settings that exclude each other.
        ModelError: a backbone whose shape is not known.
    """
    BatchPlan(recipe.batch.queries, machine.gpus)  # refuses a batch that is smaller than the ranks
    checked_settings(recipe, machine.gpus, machine.gpus_per_node)  # refuses what the engine would refuse
    setup = setup_of(recipe, machine)
    return Plan(
        recipe=recipe,
        machine=machine,
        setup=setup,
        moments=bytes_at_moments(setup),
        host_bytes_per_node=host_bytes(setup) * machine.gpus_per_node + saving_bytes(setup, machine.gpus_per_node),
        time=step_time(setup, machine),
    )
