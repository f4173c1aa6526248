"""Adafactor with factored second moments, exact although ZeRO cuts every matrix into slices.

Source: Shazeer and Stern 2018, "Adafactor", algorithms 4 to 6, with the settings of T5X: the learning rate is
multiplied by each parameter's root mean square, second-moment decay 1 - t^-0.8, update clipping at 1.0, matrices
factored when both sides reach 128, epsilon 1e-30 inside the square and 1e-3 under the parameter's RMS, no momentum.

ZeRO's flat tensors hold slices of many parameters. Adding up a slice's squared gradient by row and by column, and
summing that small buffer over ranks, gives the same row and column means as the whole matrix; the parameter's sum of
squares rides along. A second sum over ranks carries each update's sum of squares, for clipping. The state (row and
column vectors) is therefore the same on every rank and does not depend on their number.

Shapes: R rows, C columns of a parameter, n elements of it on this rank.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from largede.errors import TrainingError
from largede.training.collectives import sum_over_ranks
from largede.training.slices import FlatGroup, ParameterSlice

GRADIENT_EPSILON = 1e-30
PARAMETER_EPSILON = 1e-3


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
    def zeros(cls, shape: tuple[int, ...], factor_from: int, device: torch.device) -> "Moments":
        if len(shape) > 2:
            raise TrainingError(
                f"a parameter of shape {shape}",
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

    def precondition(self, gradient_n: Tensor, held: ParameterSlice) -> Tensor:
        """The slice of gradient / sqrt(second moment), in a new tensor (n)."""
        if self.row_R is None or self.column_C is None:
            assert self.full is not None
            return gradient_n * self.full[held.start : held.start + held.length].rsqrt()
        row_factor_R = (self.row_R / self.row_R.mean()).rsqrt()
        column_factor_C = self.column_C.rsqrt()
        update_n = gradient_n.clone()
        for piece in rectangles(held.start, held.length, self.shape[1]):
            values = piece.of(update_n)
            values *= row_factor_R[piece.row : piece.row + piece.rows, None]
            values *= column_factor_C[piece.column : piece.column + piece.columns]
        return update_n


class ZeroAdafactor(torch.optim.Optimizer):
    """Adafactor for DeepSpeed: give it to `deepspeed.initialize`, then `bind` it to the slices of the engine."""

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
        self.steps: dict[int, int] = {}
        self._groups: dict[int, FlatGroup] = {}

    def bind(self, groups: Sequence[FlatGroup]) -> None:
        """Learn which slices each flat tensor holds, and make the state of every parameter."""
        for group in groups:
            self._groups[id(group.parameter)] = group
            self.steps[id(group.parameter)] = 0
            for held in group.slices:
                moments = Moments.zeros(held.shape, self.factor_from, group.parameter.device)
                self.moments[held.name] = moments

    @property
    def step_count(self) -> int:
        """Steps taken; all groups agree between engine steps."""
        return max(self.steps.values(), default=0)

    @step_count.setter
    def step_count(self, value: int) -> None:
        self.steps = dict.fromkeys(self.steps, value)

    def state_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for m in self.moments.values() for t in m.tensors().values())

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step every flat tensor that has a gradient. Collective: ranks step the same groups in the same order."""
        for param_group in self.param_groups:
            for parameter in param_group["params"]:
                group = self._groups.get(id(parameter))
                if group is None:
                    raise TrainingError(
                        "Adafactor was stepped with a tensor it does not know",
                        expected="bind(flat_groups(engine)) after deepspeed.initialize",
                        mend="this is a defect of largede: please report it",
                    )
                if group.gradient is not None:
                    self._step_group(group, param_group["lr"])

    def _step_group(self, group: FlatGroup, learning_rate: float) -> None:
        total = (lambda local: local) if group.replicated else sum_over_ranks
        self.steps[id(group.parameter)] += 1
        decay = 1.0 - self.steps[id(group.parameter)] ** -self.decay_exponent
        flat, gradient = group.flat, group.gradient
        assert gradient is not None
        parameter_ms = self._update_moments(group, flat, gradient, decay, total)
        updates = [self.moments[h.name].precondition(h.of(gradient).float(), h) for h in group.slices]
        update_ms = total(torch.stack([u.square().sum() for u in updates])) / _numels(group, flat.device)
        clip = (update_ms.sqrt() / self.update_clip).clamp_min(1.0)
        rate = learning_rate * parameter_ms.sqrt().clamp_min(PARAMETER_EPSILON) / clip
        for i, (held, update_n) in enumerate(zip(group.slices, updates, strict=True)):
            held.of(flat).sub_(update_n.mul_(rate[i]))

    def _update_moments(
        self, group: FlatGroup, flat: Tensor, gradient: Tensor, decay: float, total: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Update every second moment of the group; gives each parameter's mean square, which rode along."""
        parts = [torch.stack([h.of(flat).square().sum() for h in group.slices])]
        for held in group.slices:
            squared_n = _squared(held.of(gradient))
            parts.append(self.moments[held.name].partial_sums(squared_n, held))
        sums = total(torch.cat(parts))
        at = len(group.slices)
        for held in group.slices:
            moments = self.moments[held.name]
            moments.update(sums[at : at + moments.sum_width], decay)
            at += moments.sum_width
        return sums[: len(group.slices)] / _numels(group, flat.device)


def _squared(gradient_n: Tensor) -> Tensor:
    return gradient_n.float().square().add_(GRADIENT_EPSILON)


def _numels(group: FlatGroup, device: torch.device) -> Tensor:
    return torch.tensor([float(h.numel) for h in group.slices], device=device)


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
        gradient = p.grad.float()  # type: ignore[union-attr]  # only called where there is one
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
