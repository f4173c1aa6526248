"""Adafactor with factored second moments, exact although ZeRO cuts every matrix into slices.

Source: Shazeer and Stern 2018, "Adafactor", algorithms 4 to 6, with the settings of T5X: the learning rate is
multiplied by each parameter's root mean square, second-moment decay 1 - t^-0.8, update clipping at 1.0, matrices
factored when both sides reach 128, epsilon 1e-30 inside the square and 1e-3 under the parameter's RMS, no momentum.

ZeRO's flat tensors hold slices of many parameters. Adding up a slice's squared gradient by row and by column, and
summing that small buffer over ranks, gives the same row and column means as the whole matrix; the parameter's sum of
squares rides along. A second sum over ranks carries each update's sum of squares, for clipping. The state (row and
column vectors) is therefore the same on every rank and does not depend on their number.

Memory: the gradient becomes the update in its own place, so a step needs one temporary of the largest slice and the
two buffers that travel. Nobody reads the gradient afterwards: DeepSpeed drops it (or, with offload, overwrites it).

Shapes: R rows, C columns of a parameter, n elements of it on this rank, P parameters of a flat tensor.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from largede.errors import TrainingError
from largede.training.collectives import group_device, sum_over_ranks
from largede.training.slices import FlatGroup, ParameterSlice

GRADIENT_EPSILON = 1e-30
PARAMETER_EPSILON = 1e-3
SMALLEST_RMS = 1e-12
"""Stands under the relative update of a parameter that is all zero."""


class Rectangle(NamedTuple):
    """`rows` x `columns` elements of a slice, contiguous from `at`, standing at (row, column) of the matrix."""

    at: int
    row: int
    rows: int
    column: int
    columns: int

    def of(self, values_n: Tensor) -> Tensor:
        return values_n.narrow(0, self.at, self.rows * self.columns).view(self.rows, self.columns)


def rectangles(start: int, length: int, columns: int) -> list[Rectangle]:
    """Cut elements start .. start + length of a row-major matrix into at most three rectangles.

    They are the rest of a row, whole rows, and the beginning of a row; empty ones are left out.
    """
    pieces = []
    at, end = start, start + length
    while at < end:
        row, column = divmod(at, columns)
        if column or end - at < columns:
            width = min(columns - column, end - at)
            pieces.append(Rectangle(at - start, row, 1, column, width))
            at += width
        else:
            whole = (end - at) // columns
            pieces.append(Rectangle(at - start, row, whole, 0, columns))
            at += whole * columns
    return pieces


@dataclass
class Moments:
    """The second moment of one parameter: means by row (R) and column (C), or every element's own (`full`)."""

    shape: tuple[int, ...]
    row_R: Tensor | None = None
    column_C: Tensor | None = None
    full: Tensor | None = None

    @classmethod
    def zeros(cls, name: str, shape: tuple[int, ...], factor_from: int, device: torch.device | str) -> "Moments":
        """The state of a parameter before its first step.

        Raises:
            TrainingError: it has more than two dimensions.
        """
        if len(shape) > 2:
            raise TrainingError(
                f"parameter {name} has shape {shape}",
                expected="one or two dimensions: Adafactor factors matrices",
                mend="use optimizer.name adamw for this model",
            )
        if len(shape) == 2 and min(shape) >= factor_from:
            return cls(shape, torch.zeros(shape[0], device=device), torch.zeros(shape[1], device=device))
        return cls(shape, full=torch.zeros(torch.Size(shape).numel(), device=device))

    def tensors(self) -> dict[str, Tensor]:
        """The state by name, as a checkpoint stores it."""
        named = {"row": self.row_R, "column": self.column_C, "full": self.full}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def sum_width(self) -> int:
        """Numbers this parameter adds to the sum over ranks."""
        return sum(t.numel() for t in self.tensors().values())

    def partial_sums(self, squared_n: Tensor, held: ParameterSlice) -> Tensor:
        """This rank's share of the sums over rows and columns (R + C), or of every element (numel)."""
        if self.row_R is None or self.column_C is None:
            sums = squared_n.new_zeros(held.numel)
            sums[held.start : held.start + held.length] = squared_n
            return sums
        R, C = self.shape
        sums = squared_n.new_zeros(R + C)
        for piece in rectangles(held.start, held.length, C):
            values = piece.of(squared_n)
            sums[piece.row : piece.row + piece.rows] += values.sum(1)
            sums[R + piece.column : R + piece.column + piece.columns] += values.sum(0)
        return sums

    def update(self, sums: Tensor, decay: float) -> None:
        """Move the means towards the completed sums of this step."""
        if self.row_R is None or self.column_C is None:
            assert self.full is not None
            self.full.mul_(decay).add_(sums, alpha=1.0 - decay)
            return
        R, C = self.shape
        self.row_R.mul_(decay).add_(sums[:R], alpha=(1.0 - decay) / C)
        self.column_C.mul_(decay).add_(sums[R:], alpha=(1.0 - decay) / R)

    def precondition_(self, gradient_n: Tensor, held: ParameterSlice) -> None:
        """Turn a slice of the gradient into gradient / sqrt(second moment), in place."""
        if self.row_R is None or self.column_C is None:
            assert self.full is not None
            gradient_n.mul_(self.full[held.start : held.start + held.length].rsqrt())
            return
        row_factor_R = (self.row_R / self.row_R.mean()).rsqrt()
        column_factor_C = self.column_C.rsqrt()
        for piece in rectangles(held.start, held.length, self.shape[1]):
            values = piece.of(gradient_n)
            values *= row_factor_R[piece.row : piece.row + piece.rows, None]
            values *= column_factor_C[piece.column : piece.column + piece.columns]


@dataclass
class BoundGroup:
    """A flat tensor with what stepping it needs: the moments of its parameters, their sizes, its steps so far."""

    group: FlatGroup
    moments: list[Moments]
    numel_P: Tensor
    steps: int = 0

    @classmethod
    def of(cls, group: FlatGroup, factor_from: int) -> "BoundGroup":
        if group.parameter.dtype != torch.float32:
            raise TrainingError(
                f"the optimizer's copy of {group.slices[0].name} is {group.parameter.dtype}",
                expected="float32 master weights",
                mend="use a file of ds_configs/, or take the settings of master weights out of yours",
            )
        device = group.parameter.device
        moments = [Moments.zeros(held.name, held.shape, factor_from, device) for held in group.slices]
        # At least 1, so that an empty parameter has a mean square of 0 rather than 0 / 0.
        numel_P = torch.tensor([max(1.0, float(held.numel)) for held in group.slices], device=device)
        return cls(group, moments, numel_P)

    def total(self, local: Tensor) -> Tensor:
        """The sum over ranks. Offloaded masters live on the CPU, where NCCL cannot sum: the buffer travels."""
        if self.group.replicated:
            return local
        return sum_over_ranks(local.to(group_device())).to(local.device)

    def local_sums(self) -> Tensor:
        """This rank's share of each parameter's sum of squares (P), then of its squared gradient's sums."""
        flat, gradient = self.group.flat, self.group.gradient
        assert gradient is not None
        parts = [torch.stack([held.of(flat).square().sum() for held in self.group.slices])]
        for held, moments in zip(self.group.slices, self.moments, strict=True):
            parts.append(moments.partial_sums(held.of(gradient).square().add_(GRADIENT_EPSILON), held))
        return torch.cat(parts)

    def update_moments(self, sums: Tensor, decay: float) -> None:
        at = 0
        for moments in self.moments:
            moments.update(sums[at : at + moments.sum_width], decay)
            at += moments.sum_width

    def precondition_(self) -> Tensor:
        """Turn the gradient into the update before clipping, in place; this rank's share of its squares' sums (P)."""
        gradient = self.group.gradient
        assert gradient is not None
        sums = []
        for held, moments in zip(self.group.slices, self.moments, strict=True):
            update_n = held.of(gradient)
            moments.precondition_(update_n, held)
            sums.append(update_n.square().sum())
        return torch.stack(sums)

    def apply_(self, rate_P: Tensor) -> None:
        """Take each parameter's rate times its update off it."""
        flat, update = self.group.flat, self.group.gradient
        assert update is not None
        for held, rate in zip(self.group.slices, rate_P.unbind(), strict=True):
            held.of(flat).sub_(held.of(update).mul_(rate))


class ZeroAdafactor(torch.optim.Optimizer):
    """Adafactor for DeepSpeed: give it to `deepspeed.initialize`, then `bind` it to the slices of the engine.

    `moments`: the state by parameter name. `relative_update`: by parameter name, RMS of its last change divided by its
    own RMS, as tensors without a dimension, so that a step waits for no device; the same on every rank.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        decay_exponent: float = 0.8,
        update_clip: float = 1.0,
        factor_from: int = 128,
    ) -> None:
        super().__init__(params, {"lr": lr})
        self.decay_exponent = decay_exponent
        self.update_clip = update_clip
        self.factor_from = factor_from
        self.moments: dict[str, Moments] = {}
        self.relative_update: dict[str, Tensor] = {}
        self._bound: dict[int, BoundGroup] = {}

    def bind(self, groups: Sequence[FlatGroup]) -> None:
        """Learn which slices each flat tensor holds, and make the state of every parameter.

        Raises:
            TrainingError: a parameter of more than two dimensions, or masters that are not float32.
        """
        self._bound = {id(group.parameter): BoundGroup.of(group, self.factor_from) for group in groups}
        self.moments = {
            held.name: moments
            for bound in self._bound.values()
            for held, moments in zip(bound.group.slices, bound.moments, strict=True)
        }

    @property
    def step_count(self) -> int:
        """Steps taken; all groups agree between engine steps."""
        return max((bound.steps for bound in self._bound.values()), default=0)

    @step_count.setter
    def step_count(self, value: int) -> None:
        for bound in self._bound.values():
            bound.steps = value

    def state_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for m in self.moments.values() for t in m.tensors().values())

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step every flat tensor that has a gradient, which is used up.

        Collective: ranks step the same groups in the same order.
        """
        for param_group in self.param_groups:
            for parameter in param_group["params"]:
                bound = self._bound.get(id(parameter))
                if bound is None:
                    raise TrainingError(
                        "Adafactor was stepped with a tensor it does not know",
                        expected="bind(flat_groups(engine)) after deepspeed.initialize",
                        mend="this is a defect of largede: please report it",
                    )
                if bound.group.gradient is not None:
                    self._step_group(bound, param_group["lr"])

    def _step_group(self, bound: BoundGroup, learning_rate: float) -> None:
        bound.steps += 1
        decay = 1.0 - bound.steps**-self.decay_exponent
        names = [held.name for held in bound.group.slices]
        sums = bound.total(bound.local_sums())
        parameter_rms_P = (sums[: len(names)] / bound.numel_P).sqrt()
        bound.update_moments(sums[len(names) :], decay)
        update_rms_P = (bound.total(bound.precondition_()) / bound.numel_P).sqrt()
        clip_P = (update_rms_P / self.update_clip).clamp_min(1.0)
        rate_P = learning_rate * parameter_rms_P.clamp_min(PARAMETER_EPSILON) / clip_P
        bound.apply_(rate_P)
        change_P = rate_P * update_rms_P / parameter_rms_P.clamp_min(SMALLEST_RMS)
        self.relative_update.update(zip(names, change_P.unbind(), strict=True))


KINDS_OF_PARAMETER = {
    "relative_attention_bias": "bias",
    "SelfAttention": "attention",
    "DenseReluDense": "feed_forward",
    "layer_norm": "norms",
    "projection": "projection",
    "shared": "embedder",
    "embed_tokens": "embedder",
}


def update_by_kind(relative_update: dict[str, Tensor]) -> dict[str, float]:
    """Root mean square of `ZeroAdafactor.relative_update` over parameters of a kind. Waits for the device once."""
    names = list(relative_update)
    if not names:
        return {}
    squares = torch.stack([relative_update[name].square() for name in names]).tolist()
    by_kind: dict[str, list[float]] = {}
    for name, square in zip(names, squares, strict=True):
        kind = next((kind for part, kind in KINDS_OF_PARAMETER.items() if part in name), "other")
        by_kind.setdefault(kind, []).append(square)
    return {kind: (sum(found) / len(found)) ** 0.5 for kind, found in by_kind.items()}


class PlainAdafactor(torch.optim.Optimizer):
    """The plain twin: the same update on whole parameters in one process, straight from the paper's formulas."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        decay_exponent: float = 0.8,
        update_clip: float = 1.0,
        factor_from: int = 128,
    ) -> None:
        super().__init__(params, {"lr": lr})
        self.decay_exponent = decay_exponent
        self.update_clip = update_clip
        self.factor_from = factor_from

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step_parameter(p, group["lr"])

    def _step_parameter(self, p: Tensor, learning_rate: float) -> None:
        state = self.state[p]
        state["step"] = state.get("step", 0) + 1
        decay = 1.0 - state["step"] ** -self.decay_exponent
        gradient = p.grad
        assert gradient is not None
        squared = gradient.square() + GRADIENT_EPSILON
        if p.dim() == 2 and min(p.shape) >= self.factor_from:
            row_R = decay * state.get("row", 0.0) + (1 - decay) * squared.mean(1)
            column_C = decay * state.get("column", 0.0) + (1 - decay) * squared.mean(0)
            state["row"], state["column"] = row_R, column_C
            moment = row_R[:, None] * column_C[None, :] / row_R.mean()
        else:
            moment = decay * state.get("full", 0.0) + (1 - decay) * squared
            state["full"] = moment
        update = gradient / moment.sqrt()
        update = update / max(1.0, _rms(update) / self.update_clip)
        p.sub_(learning_rate * max(_rms(p), PARAMETER_EPSILON) * update)


def _rms(tensor: Tensor) -> float:
    return float(tensor.square().mean().sqrt())
