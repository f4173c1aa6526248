"""A function over many items, in several processes."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from data_tools.termination import with_processes
from data_tools.work import leave_with_parent
from largede.errors import MachineError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """What `function` answers for each item, in their order. With one worker nothing leaves this process."""
    if workers == 1 or len(items) < 2:
        yield from map(function, items)
        return
    # Spawned, since a forked child of a process with threads may inherit a held lock.
    context = multiprocessing.get_context("spawn")
    with (
        with_processes() as started,
        ProcessPoolExecutor(min(workers, len(items)), mp_context=context, initializer=leave_with_parent) as pool,
    ):
        try:
            results = pool.map(function, items)
            started()
            yield from results
        except BrokenProcessPool:
            raise MachineError(
                "a process was killed", expected="enough memory for all processes", mend="use fewer --workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
