"""What ranks tell each other. Every function works alone (no process group) and with ranks that hold unequal rows.

Shapes: B local rows, N rows of all ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from largede.errors import LargedeError, MachineError, NoRoomError
from largede.files import is_no_room

T = TypeVar("T")

# torch renamed these in 2.13 and warns of the old names at every call.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def group_device() -> torch.device:
    """Where tensors have to be for the process group: this rank's GPU under NCCL, else the CPU."""
    if torch.cuda.is_available() and is_distributed() and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def max_over_ranks(value: int, device: torch.device) -> int:
    """The largest of the ranks' values, known to all. Collective."""
    if not is_distributed():
        return value
    tensor = torch.tensor([value], dtype=torch.int64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor.item())


def any_over_ranks(flag: bool, device: torch.device) -> bool:
    """True on every rank if true on one. Collective."""
    return bool(max_over_ranks(int(flag), device))


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The elementwise sum over ranks, in a new tensor. Collective."""
    total = tensor.clone()
    if is_distributed():
        dist.all_reduce(total)
    return total


def largest_over_ranks(tensor: Tensor) -> Tensor:
    """The elementwise maximum over ranks, in a new tensor. Collective."""
    largest = tensor.clone()
    if is_distributed():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def objects_of_ranks(value: T) -> list[T]:
    """Everybody's value, by rank. Collective; for small things only, it pickles between our own ranks."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_or_none(work: Callable[[], T]) -> T:
    """Do `work`; when it raises on one rank, raise on every rank instead of leaving the others waiting. Collective.

    Raises:
        LargedeError: this rank's own error as it is, or the first other rank's in its words.
    """
    result: T | None = None
    own: Exception | None = None
    try:
        result = work()
    except (LargedeError, OSError, SafetensorError) as error:
        own = error
    if not any_over_ranks(own is not None, group_device()):
        return cast(T, result)
    said = objects_of_ranks((str(own), is_no_room(own)) if own else None)
    if isinstance(own, LargedeError):
        raise own
    number, (text, is_full) = next((i, failure) for i, failure in enumerate(said) if failure)
    raise (NoRoomError if is_full else MachineError)(
        f"rank {number}: {text}",
        expected="room and permission to write, and readable files, on every host",
        mend="mend it there and give the same command again",
    ) from own


def on_rank_0(work: Callable[[], object]) -> None:
    """Do `work` on rank 0; nobody goes on before it is done, and all raise when it fails. Collective."""
    all_or_none(lambda: work() if rank() == 0 else None)


@dataclass(frozen=True)
class RowLayout:
    """How many rows each rank holds, in rank order; all ranks agree on it."""

    counts: tuple[int, ...]
    rank: int

    @property
    def is_alone(self) -> bool:
        return len(self.counts) == 1

    @property
    def is_even(self) -> bool:
        return len(set(self.counts)) == 1

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def local(self) -> slice:
        """Where this rank's rows stand among all."""
        start = sum(self.counts[: self.rank])
        return slice(start, start + self.counts[self.rank])

    def gather(self, local: Tensor) -> Tensor:
        """All ranks' rows (N, ...) in rank order. Collective. Not differentiable: the step owns the gradient."""
        if self.is_alone or self.total == 0:
            return local
        if self.is_even:
            everyone = local.new_empty((self.total, *local.shape[1:]))
            _all_gather(everyone, local.contiguous())
            return everyone
        padded = local.new_zeros((max(self.counts), *local.shape[1:]))
        padded[: len(local)] = local
        buffers = [torch.empty_like(padded) for _ in self.counts]
        dist.all_gather(buffers, padded)
        return torch.cat([b[:n] for b, n in zip(buffers, self.counts, strict=True)])

    def sum_back(self, gradient_N: Tensor) -> Tensor:
        """This rank's rows of the sum over ranks of a gradient for all rows (N, ...): the adjoint of `gather`.

        Taking the local rows without the sum is the classic mistake: it drops what the other ranks' rows say.
        `gradient_N` is not needed afterwards and may be overwritten. Collective.
        """
        if self.is_alone or self.total == 0:
            return gradient_N
        if self.is_even:
            own = gradient_N.new_empty((self.counts[0], *gradient_N.shape[1:]))
            _reduce_scatter(own, gradient_N.contiguous())
            return own
        dist.all_reduce(gradient_N)
        return gradient_N[self.local].clone()


def layouts_of(local_counts: Sequence[int], device: torch.device) -> list[RowLayout]:
    """The layouts of several kinds of rows, from this rank's count of each. Collective, once for all kinds."""
    if not is_distributed():
        return [RowLayout((count,), 0) for count in local_counts]
    counts_WX = torch.zeros(dist.get_world_size(), len(local_counts), dtype=torch.int64, device=device)
    counts_WX[dist.get_rank()] = torch.tensor(local_counts)
    dist.all_reduce(counts_WX)
    return [RowLayout(tuple(column), dist.get_rank()) for column in counts_WX.T.tolist()]
