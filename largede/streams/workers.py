"""Steps prepared ahead in loader processes. Imports torch: import it where it is used."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

T = TypeVar("T")

# Steps each worker keeps ready ahead of the trainer.
STEPS_AHEAD = 2


class _StridedSteps(IterableDataset[T]):
    """Worker k of n runs `steps(start + k, n)`."""

    def __init__(self, steps: Callable[[int, int], Iterator[T]], start: int) -> None:
        self._steps = steps
        self._start = start

    def __iter__(self) -> Iterator[T]:
        worker = get_worker_info()
        assert worker is not None
        return self._steps(self._start + worker.id, worker.num_workers)


def steps_in_workers(steps: Callable[[int, int], Iterator[T]], start: int, workers: int) -> Iterator[T]:
    """The items of steps start, start + 1, ... in order, prepared by `workers` processes, which end with the iterator.

    `steps(first, stride)` yields the items of steps first, first + stride, ...
    """
    # Without batch_size the loader hands items through as they are and asks its workers in turn.
    loader: Any = DataLoader(
        _StridedSteps(steps, start), batch_size=None, num_workers=workers, prefetch_factor=STEPS_AHEAD
    )
    return iter(loader)
