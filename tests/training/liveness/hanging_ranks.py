"""Groups of ranks in which something goes wrong, each rank a process of its own: `python hanging_ranks.py FOLDER`.

One process imports the libraries and forks all ranks of all groups, which therefore start in a moment and run side by
side. Each rank's output goes to FOLDER/GROUP/rank-N.out; the exit statuses, to FOLDER/statuses.json.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from batches_for_tests import small_recipe

from largede.config.recipe import GuardConfig, Recipe
from largede.training import trainer as trainer_module
from largede.training.feed import Feed
from largede.training.liveness.activity import SAVING, STEPPING, activity, phase
from largede.training.liveness.watchdog import pulse, start_watch, until_watch_ends
from largede.training.run_life import RunLife
from largede.training.trainer import train

WORLD = 3
HANG_AFTER_S = 6.0
STEPS = 3


def small_steps(folder: Path, at_step_2: Callable[[int], None], on_hang: str = "stop") -> None:
    """A run without a model: steps of one collective each, watched; `at_step_2(rank)` is what goes wrong."""
    guard = GuardConfig(hang_after_s=HANG_AFTER_S, on_hang=on_hang)  # type: ignore[arg-type]
    with RunLife(folder, STEPS, lambda line: None) as life, until_watch_ends():
        start_watch(folder, guard, dist.get_rank(), WORLD)
        life.begin(0)
        activity.begin_run(0)
        activity.enter_phase(STEPPING)
        for step in range(1, STEPS + 1):
            activity.take(step, [f"question-{dist.get_rank()}-{i}" for i in range(3)])
            if step == 2:
                time.sleep(0.5)  # a few heartbeats
                at_step_2(dist.get_rank())
            dist.all_reduce(torch.ones(2))
            activity.end_step(step)


def spins(rank: int) -> None:
    while rank == 1:
        pass


def is_stopped(rank: int) -> None:
    if rank == 0:
        os.kill(os.getpid(), signal.SIGSTOP)


def holds_the_interpreter(rank: int) -> None:
    if rank == 2:
        ctypes.PyDLL(None).sleep(1000)


def calls_once_more(rank: int) -> None:
    if rank == 1:
        dist.all_gather([torch.ones(1) for _ in range(WORLD)], torch.ones(1))


def sleeps_too_long(rank: int) -> None:
    if rank == 1:
        time.sleep(1.6 * HANG_AFTER_S)


def works_long(rank: int) -> None:
    """Longer than the watch allows, but with a pulse; and somebody asks for its stacks meanwhile."""
    for _ in range(16 if rank == 1 else 0):
        time.sleep(HANG_AFTER_S / 10)
        pulse()
    if rank == 1:
        signal.raise_signal(signal.SIGUSR2)


def saves_long(rank: int) -> None:
    with phase(SAVING):
        time.sleep(1.6 * HANG_AFTER_S if rank == 1 else 0.0)
        dist.barrier()


def is_suspended(rank: int) -> None:
    """All are stopped for long, two of them inside the collective; then the third has a little work to do."""

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    if rank == 1:
        time.sleep(0.5)
        stop()
        time.sleep(2.0)
    else:
        threading.Timer(0.5, stop).start()


def is_killed(rank: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def leaves(rank: int) -> None:
    if rank == 1:
        raise ValueError("a defect on one rank")


WITH_A_MODEL = "reader sleeps"
SMALL: dict[str, Callable[[int], None]] = {
    "spins": spins,
    "is stopped": is_stopped,
    "holds the interpreter": holds_the_interpreter,
    "calls once more": calls_once_more,
    "works long": works_long,
    "saves long": saves_long,
    "is suspended": is_suspended,
    "is killed": is_killed,
    "leaves": leaves,
}


def recipe_of(folder: Path, data: dict[str, Any]) -> Recipe:
    settings = {
        **data,
        "data__lanes": 2,
        "batch__queries": 12,
        "batch__chunk_tokens": 120,
        "optimizer__learning_rate": 0.01,
        "guard__hang_after_s": HANG_AFTER_S,
        "guard__on_hang": "stop",
        "run__out": str(folder / "run"),
        "run__steps": STEPS,
        "run__log_every": 1,
        "run__dry_run": False,
    }
    return small_recipe(folder, 3, **settings)


class FeedWhoseReaderSleeps(Feed):
    """On rank 1, from the second batch on."""

    def own_batch(self) -> Any:
        if activity.step == 2 and dist.get_rank() == 1:
            with phase("waiting for data"):
                time.sleep(1000)
        return super().own_batch()


def be_rank(group: str, folder: Path, rank: int, data: dict[str, Any]) -> int:
    output = os.open(folder / f"rank-{rank}.out", os.O_WRONLY | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_WORLD_SIZE=str(WORLD))
    os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    try:
        store = f"file://{folder}/store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD, timeout=timedelta(minutes=2))
        if group in SMALL:
            small_steps(folder / "run", SMALL[group])
        elif group == "sleeps too long":
            small_steps(folder / "run", sleeps_too_long, on_hang="report")
        else:
            trainer_module.Feed = FeedWhoseReaderSleeps  # type: ignore[misc]
            train(recipe_of(folder, data))
    except SystemExit as leaving:
        return int(leaving.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


GROUPS = (WITH_A_MODEL, *SMALL, "sleeps too long")


def fork_ranks(group: str, folder: Path, data: dict[str, Any]) -> dict[int, int]:
    """The ranks' process numbers, by rank."""
    folder.mkdir()
    processes = {}
    for rank in range(WORLD):
        process = os.fork()
        if process == 0:
            status = be_rank(group, folder, rank, data)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        processes[rank] = process
    return processes


def statuses_of(processes: dict[int, int]) -> list[int]:
    """How each rank ended. A rank that cannot end by itself is ended when it is the last of its group."""
    left, statuses = dict(processes), {}
    while left:
        for rank, process in list(left.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                statuses[rank] = os.waitstatus_to_exitcode(status)
                del left[rank]
        if len(left) == 1 and len(statuses) == WORLD - 1 and any(status == 76 for status in statuses.values()):
            time.sleep(1.0)
            [(rank, process)] = left.items()
            done, status = os.waitpid(process, os.WNOHANG)
            if not done:
                os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
            statuses[rank] = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.05)
    return [statuses[rank] for rank in range(WORLD)]


def wake_later(processes: dict[int, int]) -> None:
    """Let them go on when all have been stopped for longer than the watch allows."""

    def are_stopped() -> bool:
        states = [Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] for process in own]
        return all(state == "T" for state in states)

    def wake() -> None:
        while not are_stopped():
            time.sleep(0.1)
        time.sleep(1.3 * HANG_AFTER_S)
        for process in own:
            os.kill(process, signal.SIGCONT)

    own = list(processes.values())
    threading.Thread(target=wake, daemon=True).start()


def main(folder: Path, data: dict[str, Any]) -> None:
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    torch.set_num_threads(1)
    processes = {group: fork_ranks(group, folder / group, data) for group in GROUPS}
    wake_later(processes["is suspended"])
    statuses = {group: statuses_of(ranks) for group, ranks in processes.items()}
    (folder / "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
