"""Run one function on several gloo ranks and bring back what each returned. One group serves as many checks as fit."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp


def run_on_ranks(world: int, function: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """`[function(*args) of rank 0, of rank 1, …]`, each in its own process inside one process group."""
    start_server()
    pipes = [mp.get_context("forkserver").Pipe(duplex=False) for _ in range(world)]
    senders = [sender for _, sender in pipes]
    context = mp.start_processes(
        _enter, args=(world, function, str(folder), senders, args), nprocs=world, join=False, start_method="forkserver"
    )
    try:
        answers = _answers([receiver for receiver, _ in pipes], context.processes)
    except AssertionError:
        for process in context.processes:
            process.terminate()
        raise
    context.join()
    return answers


def start_server() -> None:
    """Start, once, the process that ranks are forked from; it has imported what takes seconds to import."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        multiprocessing.set_forkserver_preload(["ranks_preloaded"])
        forkserver.ensure_running()
    finally:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path


def _answers(receivers: list[Any], processes: list[Any]) -> list[Any]:
    """What each rank answered; the failure of the first that failed, or that ended without a word, is raised."""
    answers: dict[int, Any] = {}
    while len(answers) < len(receivers):
        waiting = [rank for rank in range(len(receivers)) if rank not in answers]
        wait([receivers[rank] for rank in waiting] + [processes[rank].sentinel for rank in waiting])
        for rank in waiting:
            status = processes[rank].exitcode  # before looking for an answer: it may answer and end in between
            if receivers[rank].poll():
                answers[rank], failure = receivers[rank].recv()
            elif status is not None:
                failure = f"ended with status {status} and without an answer"
            else:
                continue
            if failure:
                raise AssertionError(f"rank {rank} of {len(receivers)}:\n{failure}")
    return [answers[rank] for rank in range(len(receivers))]


def _enter(
    rank: int, world: int, function: Callable[..., Any], folder: str, senders: list[Any], args: tuple[Any, ...]
) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    try:
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        torch.set_num_threads(1)
        # A file as meeting place: no port to collide on.
        store = f"file://{folder}/store-{world}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
        deepspeed.init_distributed(dist_backend="gloo", verbose=False)
        senders[rank].send((function(*args), None))
    except BaseException:
        senders[rank].send((None, traceback.format_exc()))
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    # Gloo's threads may abort the interpreter on its way out; see largede.verbs.enter.
    sys.stdout.flush()
    os._exit(0)
