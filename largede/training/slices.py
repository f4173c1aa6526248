"""Which part of which parameter this rank's optimizer holds.

ZeRO hands the optimizer flat float32 tensors made of slices of many parameters. This file is the only one that knows
how DeepSpeed lays them out; the optimizer and the checkpoint work with `FlatGroup` alone.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from largede.errors import TrainingError


@dataclass(frozen=True)
class ParameterSlice:
    """Elements start .. start + length of a parameter (row-major), held at `offset` of the flat tensor."""

    name: str
    shape: tuple[int, ...]
    start: int
    length: int
    offset: int

    @property
    def numel(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count

    def of(self, flat: Tensor) -> Tensor:
        """The view of `flat` that holds this slice."""
        return flat.narrow(0, self.offset, self.length)


@dataclass(frozen=True)
class FlatGroup:
    """One tensor the optimizer steps, and the slices in it. Every rank has the same parameters in a group.

    `replicated`: every rank holds all of it (no ZeRO), so sums over the slice are already complete.
    """

    parameter: Tensor
    slices: tuple[ParameterSlice, ...]
    replicated: bool = False

    @property
    def flat(self) -> Tensor:
        """The values, one-dimensional, float32 master weights where there are any."""
        return self.parameter.detach().view(-1)

    @property
    def gradient(self) -> Tensor | None:
        return None if self.parameter.grad is None else self.parameter.grad.view(-1)


def flat_groups(engine: Any) -> list[FlatGroup]:
    """The optimizer's flat float32 tensors on this rank, in stepping order, for ZeRO 0 (float32), 1, 2 and 3.

    Raises:
        TrainingError: an optimizer wrapper whose layout is not known.
    """
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    stage = engine.zero_optimization_stage()
    if stage == 3:
        return _stage3_groups(engine.optimizer, names, engine.global_rank)
    if stage in (1, 2) and hasattr(engine.optimizer, "single_partition_of_fp32_groups"):
        return _stage12_groups(engine.optimizer, names)
    if stage == 0 and not hasattr(engine.optimizer, "bf16_groups"):
        return _whole_groups(engine.optimizer, names)
    raise TrainingError(
        f"DeepSpeed wraps the optimizer as {type(engine.optimizer).__name__} at ZeRO stage {stage}",
        expected="ZeRO 1, 2 or 3, or stage 0 in float32",
        mend="choose another file of ds_configs/",
    )


def _stage3_groups(zero: Any, names: dict[int, str], rank: int) -> list[FlatGroup]:
    """ZeRO-3: rank r holds elements r * ceil(n / W) and on of every parameter; sub-groups hold whole parameters."""
    groups = []
    for parameters, flat in zip(zero.fp16_groups, zero.fp32_partitioned_groups_flat, strict=True):
        slices, offset = [], 0
        for parameter in parameters:
            share = parameter.partition_numel()
            start = min(rank * share, parameter.ds_numel)
            length = min(share, parameter.ds_numel - start)
            slices.append(ParameterSlice(names[id(parameter)], tuple(parameter.ds_shape), start, length, offset))
            offset += share
        groups.append(FlatGroup(flat, tuple(slices)))
    return groups


def _stage12_groups(zero: Any, names: dict[int, str]) -> list[FlatGroup]:
    """ZeRO-1 and 2: all parameters end to end, cut into W equal parts, so a cut can fall inside a parameter."""
    from deepspeed import comm

    groups = []
    for i, flat in enumerate(zero.single_partition_of_fp32_groups):
        held_from = comm.get_rank(group=zero.real_dp_process_group[i]) * zero.partition_size[i]
        held_to = held_from + zero.partition_size[i]
        slices = []
        for parameter, at in zip(zero.round_robin_bit16_groups[i], zero.round_robin_bit16_offsets[i], strict=True):
            first, last = max(at, held_from), min(at + parameter.numel(), held_to)
            length = max(0, last - first)
            start, offset = (first - at, first - held_from) if length else (0, 0)
            slices.append(ParameterSlice(names[id(parameter)], tuple(parameter.shape), start, length, offset))
        groups.append(FlatGroup(flat, tuple(slices)))
    return groups


def _whole_groups(optimizer: Any, names: dict[int, str]) -> list[FlatGroup]:
    """No ZeRO: each rank holds every parameter whole; a flat view of each."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [
        FlatGroup(p, (ParameterSlice(names[id(p)], tuple(p.shape), 0, p.numel(), 0),), replicated=True)
        for p in parameters
    ]


def clear_gradients(engine: Any) -> None:
    """Empty the buffers in which ZeRO-3 adds up the gradients of several backward passes.

    To be called before the first backward pass of a step. DeepSpeed overwrites these buffers in that pass and adds to
    them in later ones, for all parameters alike: a parameter that takes no part in the first pass (the other tower's)
    would begin with what the steps before left in its buffer.
    """
    if engine.zero_optimization_stage() == 3:
        engine.optimizer.grad_partitions_flat_buffer.zero_()


def spread_master_weights(engine: Any) -> None:
    """Make the model's parameters follow the float32 masters after these were written to. Collective."""
    zero = engine.optimizer
    stage = engine.zero_optimization_stage()
    if stage in (1, 2):
        zero.update_lp_params()
    elif stage == 3:
        persistent = zero.persistent_parameters
        if persistent:
            persistent[0].partition(persistent)
        for sub_group in range(len(zero.fp16_groups)):
            zero._reassign_or_swap_out_partitioned_parameters(sub_group)
        if persistent:
            persistent[0].all_gather(persistent)
