"""Notes every collective of this process in its `Activity`: ours, torch's and DeepSpeed's.

All of them end in methods of torch's ProcessGroup, and all that wait, in Work.wait; so those are wrapped, and nothing
above them has to be known. A collective without a wait (NCCL) is noted while it is enqueued; what the GPU is in comes
from torch's flight recorder (`calls_on_gpu`).
"""

import functools
import json
from collections.abc import Callable
from typing import Any

import torch
from torch.distributed import ProcessGroup

from largede.training.liveness.activity import Call, activity
from largede.training.liveness.stream_times import stream_times

COLLECTIVES = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce",
    "allgather": "all_gather",
    "_allgather_base": "all_gather",
    "all_gather_single": "all_gather",
    "allgather_coalesced": "all_gather",
    "allgather_into_tensor_coalesced": "all_gather",
    "all_gather_single_coalesced": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter",
    "reduce_scatter_single": "reduce_scatter",
    "reduce_scatter_tensor_coalesced": "reduce_scatter",
    "reduce_scatter_single_coalesced": "reduce_scatter",
    "alltoall": "all_to_all",
    "alltoall_base": "all_to_all",
    "all_to_all_single": "all_to_all",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "gather": "gather",
    "scatter": "scatter",
    "barrier": "barrier",
    "monitored_barrier": "barrier",
    "send": "send",
    "recv": "recv",
}

MOST_PENDING = 4096


class PendingCalls:
    """Which call a torch Work belongs to, by its identity; newest `MOST_PENDING` only.

    A Work refuses attributes. An identity that is used again belongs to the newer call, which has replaced it.
    """

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}

    def add(self, work: Any, call: Call) -> None:
        if work is None:
            return
        self._calls[id(work)] = call
        if len(self._calls) > MOST_PENDING:
            del self._calls[next(iter(self._calls))]

    def take(self, work: Any) -> Call | None:
        return self._calls.pop(id(work), None)


_pending = PendingCalls()


def watch_collectives() -> None:
    """From now on every collective is noted. Costs microseconds a call; done once, further calls change nothing."""
    work = torch.distributed.Work
    if hasattr(work.wait, "__wrapped__"):
        return
    for method, name in COLLECTIVES.items():
        if hasattr(ProcessGroup, method):
            setattr(ProcessGroup, method, _noted(getattr(ProcessGroup, method), name))
    setattr(work, "wait", _noted_wait(work.wait))  # noqa: B010  # mypy knows it as a method


def _noted(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def noted(group: Any, *args: Any, **options: Any) -> Any:
        if not activity.is_of_step:
            return method(group, *args, **options)
        call = activity.begin_call(name, largest_bytes(args))
        work = _inside(method, group, *args, **options)
        _pending.add(work, call)
        return work

    return noted


def _noted_wait(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def noted(work: Any, *args: Any, **options: Any) -> Any:
        call = _pending.take(work)
        if call is None or not activity.is_of_step:
            return method(work, *args, **options)
        activity.enter_call(call)
        return _inside(method, work, *args, **options)

    return noted


def _inside(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        with stream_times.measured():
            result = method(*args, **options)
    except BaseException:
        activity.leave_call(failed=True)
        raise
    activity.leave_call()
    return result


def largest_bytes(args: tuple[Any, ...]) -> int:
    """The size of the largest of a collective's operands: what its output, or its input, takes on this rank."""
    return max((_bytes_of(arg) for arg in args[:2]), default=0)


def _bytes_of(arg: Any) -> int:
    if isinstance(arg, torch.Tensor):
        return arg.numel() * arg.element_size()
    return sum(_bytes_of(part) for part in arg) if isinstance(arg, list | tuple) else 0


def calls_on_gpu() -> list[str]:
    """The collectives that a GPU has not finished, oldest first, as torch's flight recorder has them; [] on a CPU.

    The recorder is on by default (TORCH_FR_BUFFER_SIZE calls are kept).
    """
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return []
    recorder: Any = torch._C._distributed_c10d
    entries = json.loads(recorder._dump_fr_trace_json(includeCollectives=True, onlyActive=True)).get("entries", [])
    return [
        f"{entry['profiling_name']} #{entry['collective_seq_id']} of group {entry['process_group'][0]}, "
        f"sizes {entry['input_sizes']}, {entry['state']}"
        for entry in entries
    ]
