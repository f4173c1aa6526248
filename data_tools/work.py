"""Restartable work: a stage is a list of tasks done by several processes; a task leaves a folder, whole or absent.

A stage that was stopped, at whatever moment, does only the tasks whose folders are missing.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.progress import ByteProgress
from data_tools.sources import Reading, reading
from data_tools.termination import with_processes
from largede.errors import MachineError
from largede.files import read_json_object, write_json, writing_folder

REPORT = "report.json"

Report = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """`name` is that of its folder; `bytes` is what it reads, for the progress line."""

    name: str
    bytes: int


Work = Callable[[Any, Path], Report]
"""What is done for a task: it writes into the folder given and answers with what is to be remembered, as JSON."""


class Meter:
    """Bytes read by all processes together. A task counts as `task.bytes` in the end, whatever it really read."""

    def __init__(self, total: Any) -> None:
        self._total = total
        self._of_task = 0

    def add(self, count: int) -> None:
        self._of_task += count
        with self._total.get_lock():
            self._total.value += count

    def settle(self, task_bytes: int) -> None:
        self.add(task_bytes - self._of_task)
        self._of_task = 0


def run_stage(
    folder: Path, tasks: Sequence[Task], work: Work, workers: int, label: str, max_bytes: int | None = None
) -> list[Report]:
    """Do the tasks that are not done yet, in `workers` processes; the reports of all, in order.

    The first error of a task is raised when the tasks under way are done, and no other is begun; folders of finished
    tasks stay. `work` and the tasks travel between processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [task for task in tasks if not (folder / task.name / REPORT).exists()]
    _remove_leftovers(folder, waiting)
    context = multiprocessing.get_context("spawn")
    total = context.Value("q", 0)
    with ByteProgress(label, sum(task.bytes for task in waiting), lambda: int(total.value)):
        if workers == 1 or len(waiting) < 2:
            meter = Meter(total)
            for task in waiting:
                _perform(folder, task, work, meter, max_bytes)
        else:
            _in_processes(folder, waiting, work, min(workers, len(waiting)), total, max_bytes)
    return [read_json_object(folder / task.name / REPORT) for task in tasks]


def _perform(folder: Path, task: Task, work: Work, meter: Meter, max_bytes: int | None) -> None:
    # Of this process with its threads, so the same on a busy machine.
    started = time.process_time()
    with writing_folder(folder / task.name) as partial:
        with reading(Reading(meter.add, max_bytes)):
            report = work(task, partial)
        write_json(partial / REPORT, report | {"cpu_seconds": round(time.process_time() - started, 3)})
    meter.settle(task.bytes)


def _in_processes(
    folder: Path, tasks: Sequence[Task], work: Work, workers: int, total: Any, max_bytes: int | None
) -> None:
    # Spawned, since a forked child of a process with threads may inherit a held lock.
    context = multiprocessing.get_context("spawn")
    with (
        with_processes() as started,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(total,)) as pool,
    ):
        futures = [pool.submit(_perform_here, folder, task, work, max_bytes) for task in tasks]
        started()
        try:
            for future in as_completed(futures):
                future.result()
        except BrokenProcessPool:
            raise MachineError(
                f"a process that worked on {folder} was killed",
                expected="enough memory for all processes",
                mend="use fewer --workers and run the same command again; what is finished stays",
            ) from None
        finally:
            for future in futures:
                future.cancel()


_meter: Meter | None = None


def _begin(total: Any) -> None:
    """In a worker process, before its first task."""
    global _meter
    _meter = Meter(total)
    leave_with_parent()


def leave_with_parent() -> None:
    """Have this worker process end when the one that started it ends, even if that was killed."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    # When the parent is killed nobody else tells its workers, and they would wait for tasks for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _perform_here(folder: Path, task: Task, work: Work, max_bytes: int | None) -> None:
    assert _meter is not None
    _perform(folder, task, work, _meter, max_bytes)


def _remove_leftovers(folder: Path, waiting: Sequence[Task]) -> None:
    """What a killed run was writing, or removing."""
    made = (*folder.glob(".*.partial"), *folder.glob(".*.removed"))
    for partial in (*made, *(folder / task.name for task in waiting)):
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[bool]:
    """Whether no other process holds `lock`, which this one then does until the block ends."""
    import fcntl

    with lock.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
