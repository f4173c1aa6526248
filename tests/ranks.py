"""Run one function on several gloo ranks and bring back what each returned. One group serves as many checks as fit."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp


def run_on_ranks(world: int, function: Callable[..., Any], folder: Path, *args: Any) -> list[Any]:
    """`[function(*args) of rank 0, of rank 1, …]`, each in its own process inside one process group."""
    queue = mp.get_context("spawn").SimpleQueue()
    context = mp.start_processes(
        _enter, args=(world, function, str(folder), queue, args), nprocs=world, join=False, start_method="spawn"
    )
    answers: dict[int, Any] = {}
    while len(answers) < world:
        rank, answer, failure = queue.get()
        if failure:
            for process in context.processes:
                process.terminate()
            raise AssertionError(f"rank {rank} of {world}:\n{failure}")
        answers[rank] = answer
    context.join()
    return [answers[rank] for rank in range(world)]


def _enter(rank: int, world: int, function: Callable[..., Any], folder: str, queue: Any, args: tuple[Any, ...]) -> None:
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
        queue.put((rank, function(*args), None))
    except BaseException:
        queue.put((rank, None, traceback.format_exc()))
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
