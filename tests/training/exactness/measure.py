"""One case on a live engine: take the step, put the ranks' slices of the gradient together, compare with the twin."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from exactness.case_batch import CaseBatch, chunk_tokens
from exactness.engines import MatrixEngine, switch
from exactness.factors import Case
from exactness.twin import Truth, chunks_of_ranks, seed_of
from largede.models.dual_encoder import SIDES
from largede.streams.chunks import Chunk
from largede.training.gradcache import GradCacheStep

FLOAT32_TOLERANCE = 1e-5
"""||D|| / ||g|| of each tensor, at temperature 0.01."""

BF16_ROUNDOFF = 2.0**-9
BACKWARD_ROUNDINGS = 16


def tolerances(case: Case, truth: Truth) -> dict[str, float]:
    """By parameter, the largest ||D|| / ||g|| that is rounding.

    bf16: DeepSpeed turns each chunk's gradient into bf16, adds those of W ranks and divides by W, all in bf16 (its
    `communication_data_type`): W + 1 roundings of at most 2^-9 of a chunk's gradient. Chunks are then added in float32
    slices; coalesced, the sums of K chunks are rounded too, where parameters are bf16. These errors are relative to the
    chunks' gradients, which may cancel: ||g|| is 1 / `cancellation` of the sum of their lengths. The backward pass
    itself, some sixteen bf16 operations deep, rounds elsewhere where W is no power of two, because the surrogate is
    multiplied by W, and at ZeRO-3, whose hooks change the order in which gradients of one tensor are added.
    """
    if not truth.cancellation:
        return dict.fromkeys(truth.gradients, FLOAT32_TOLERANCE)
    roundings = case.ranks + 1
    if case.reduction == "coalesced":
        roundings += chunks_of_case(case)
    is_power_of_two = case.ranks & (case.ranks - 1) == 0
    if case.zero == 3 or not is_power_of_two:
        roundings += BACKWARD_ROUNDINGS
    return {n: roundings * BF16_ROUNDOFF * cancellation for n, cancellation in truth.cancellation.items()}


def chunks_of_case(case: Case) -> int:
    """Chunks of both sides that one rank computes."""
    batch = CaseBatch(case)
    return sum(len(chunks_of_ranks(batch, side, chunk_tokens(case), case.ranks)[0]) for side in SIDES)


@dataclass(frozen=True)
class Answer:
    """The worst over ranks: |loss - twin's| / twin's, and ||D|| / ||g|| of the parameter that is furthest off.

    Furthest off is who takes the largest `share` of its tolerance. `is_bitwise`: the replay gave the embeddings of the
    first pass to the last bit, on every rank.
    """

    loss_error: float
    error: float
    parameter: str
    share: float
    is_bitwise: bool


class WatchedStep(GradCacheStep):
    """The step, keeping what each pass embedded, in order."""

    def __init__(self, engine: Any, recipe: Any) -> None:
        super().__init__(engine, recipe)
        self.first: list[Tensor] = []
        self.again: list[Tensor] = []
        self._is_replaying = False

    def embed(self, side: Any, chunk: Chunk) -> Tensor:
        output_bD = super().embed(side, chunk)
        (self.again if self._is_replaying else self.first).append(output_bD.detach().clone())
        return output_bD

    def carry_back(self, sides: Any) -> None:
        self._is_replaying = True
        super().carry_back(sides)

    def replayed_bitwise(self) -> bool:
        return len(self.first) == len(self.again) and all(map(torch.equal, self.first, self.again))


def answer_case(
    case: Case, made: MatrixEngine, truth: Truth, batch: CaseBatch, step_type: type[WatchedStep] = WatchedStep
) -> Answer:
    """Collective."""
    switch(made.engine.module, case)
    step = step_type(made.engine, made.recipe(case))
    made.gradients.clear()
    torch.manual_seed(seed_of(dist.get_rank()))
    report = step(batch.of_rank(dist.get_rank(), dist.get_world_size()))
    made.engine.step()
    if set(truth.gradients) != set(made.shapes) or set(made.gradients) != set(made.shapes):
        raise AssertionError(f"parameters with a gradient differ: {set(truth.gradients) ^ set(made.gradients)}")
    errors = errors_of(whole_gradients(made), truth.gradients)
    loss_error = abs(report.score.loss - truth.loss) / abs(truth.loss)
    own = torch.tensor([loss_error, float(not step.replayed_bitwise()), *errors.values()], dtype=torch.float64)
    # A NaN would get lost in a maximum.
    worst = torch.nan_to_num(own, nan=float("inf"))
    dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    by_name = dict(zip(errors, worst[2:].tolist(), strict=True))
    allowed = tolerances(case, truth)
    share, parameter = max((by_name[n] / allowed[n], n) for n in by_name)
    return Answer(float(worst[0]), by_name[parameter], parameter, share, is_bitwise=float(worst[1]) == 0.0)


def errors_of(ours: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    return {n: float((ours[n].double() - g.double()).norm() / g.double().norm()) for n, g in truth.items()}


def whole_gradients(made: MatrixEngine) -> dict[str, Tensor]:
    """Every parameter's gradient, from the slices of all ranks, or this rank's own where each holds all. Collective.

    Each element must come from exactly one rank.
    """
    sizes = {name: torch.Size(shape).numel() for name, shape in made.shapes.items()}
    flat = torch.zeros(2, sum(sizes.values()))
    start = 0
    for name, size in sizes.items():
        held, values = made.gradients[name]
        flat[0, start + held.start : start + held.start + held.length] = values.float()
        flat[1, start + held.start : start + held.start + held.length] += 1
        start += size
    if not made.is_replicated:
        dist.all_reduce(flat)
    if not bool((flat[1] == 1).all()):
        raise AssertionError("the slices of the ranks do not cover every element once")
    pieces = flat[0].split(list(sizes.values()))
    return {name: piece.view(made.shapes[name]) for name, piece in zip(sizes, pieces, strict=True)}
