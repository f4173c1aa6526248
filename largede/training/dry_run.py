"""One made step of the largest shape a recipe can produce, before data is touched, so that memory fails in a minute.

Of each side only two chunks are computed, one of rows at the limit and one filled to the brim, the second on top of
what the first left behind; the loss sees all rows. The optimizer steps with learning rate 0 and then forgets, so
nothing remains.
"""

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from largede.config.batch import BatchPlan
from largede.config.recipe import Recipe
from largede.errors import MachineError, ModelError
from largede.streams.chunks import TokenRows
from largede.streams.tokenise import RankBatch
from largede.training.adafactor import ZeroAdafactor
from largede.training.collectives import rank, world_size
from largede.training.gradcache import GradCacheStep
from largede.training.optimizers import client_optimizer
from largede.training.plan import Machine, predict

T = TypeVar("T")

CHUNKS_PER_SIDE = 2
ORDINARY_TOKEN = 5
COUNTERS = ("global_steps", "global_samples", "micro_steps")


class DryStep(GradCacheStep):
    """The step, cut to the chunks that show its peak. With kept graphs every chunk counts, so none is left out."""

    def equal_chunks(self, rows: TokenRows, budget_tokens: int) -> list[Any]:
        chunks = super().equal_chunks(rows, budget_tokens)
        return chunks[:CHUNKS_PER_SIDE] if self.batch.gradient_cache else chunks


def dry_run(engine: Any, recipe: Recipe) -> str:
    """Take the step and undo it; gives a line that says what it took. Collective.

    Raises:
        MachineError: this rank ran out of memory. The launcher ends the others.
    """
    started = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    naming_the_plan(recipe, "the largest step", lambda: take_step(engine, recipe))
    took = f"the largest step fits ({time.perf_counter() - started:.1f} s"
    if torch.cuda.is_available():
        took += f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on this GPU"
        torch.cuda.empty_cache()
    return f"dry run: {took})"


def naming_the_plan(recipe: Recipe, what: str, work: Callable[[], T]) -> T:
    """Do `work`, which makes `what`; where it runs out of memory, say so with the plan's numbers.

    Raises:
        MachineError: this rank ran out of memory.
    """
    try:
        return work()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, what, recipe) from None


def take_step(engine: Any, recipe: Recipe) -> None:
    optimizer = client_optimizer(engine)
    before = {name: getattr(engine, name) for name in COUNTERS}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    DryStep(engine, recipe)(largest_batch(recipe))
    engine.step()
    for name, value in before.items():
        setattr(engine, name, value)
    forget(optimizer)


def forget(optimizer: torch.optim.Optimizer) -> None:
    """Put the optimizer back to before its first step."""
    if isinstance(optimizer, ZeroAdafactor):
        for moments in optimizer.moments.values():
            for tensor in moments.tensors().values():
                tensor.zero_()
        optimizer.step_count = 0
    else:
        optimizer.state.clear()


def largest_batch(recipe: Recipe) -> RankBatch:
    """This rank's rows with every pair's hard negatives, in the lengths that take most memory."""
    B = len(BatchPlan(recipe.batch.queries, world_size()).rows(rank()))
    M = B * recipe.data.hard_negatives
    return RankBatch(
        step=0,
        queries=longest_rows(B, recipe.data.longest_query_tokens, recipe.batch.chunk_tokens),
        passages=longest_rows(B + M, recipe.data.longest_passage_tokens, recipe.batch.chunk_tokens),
        query_keys=np.arange(3 * B, dtype=np.int64).reshape(B, 3),
        answer_keys=np.empty((B, 0), dtype=np.int64),
        negative_keys=np.arange(3 * M, dtype=np.int64).reshape(M, 3) + 3 * B,
        sample_names=("made for the dry run",) * B,
        cut_texts=0,
    )


def longest_rows(rows: int, limit: int, budget_tokens: int) -> TokenRows:
    """One chunk of rows at the limit, whose attention is the largest; others of the length that fills a chunk best."""
    at_limit = min(rows, max(1, budget_tokens // limit))
    filling = min(limit, budget_tokens // -(-budget_tokens // limit))
    lengths = np.full(rows, filling, dtype=np.int64)
    lengths[:at_limit] = limit
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    return TokenRows(np.full(offsets[-1], ORDINARY_TOKEN, dtype=np.int32), offsets)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # On a CPU, in cuBLAS and in NCCL it is a plain RuntimeError.
    return any(words in str(error) for words in ("can't allocate memory", "out of memory", "ALLOC_FAILED", "calloc"))


def this_machine() -> Machine:
    gpus, own = world_size(), int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world_size())
    nodes = gpus // own if gpus % own == 0 else 1
    if not torch.cuda.is_available():
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Machine(gpus=gpus, nodes=nodes, gpu_gib=memory * nodes / gpus / 2**30, device="cpu")
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return Machine(gpus=gpus, nodes=nodes, gpu_gib=total / 2**30)


def out_of_memory(error: BaseException, what: str, recipe: Recipe) -> MachineError:
    expected = f"memory for {what}"
    # A backbone that is no T5 has no plan.
    with contextlib.suppress(ModelError):
        expected = "\n".join(
            ["memory for what the plan predicts per rank:", *predict(recipe, this_machine()).memory_lines()]
        )
    return MachineError(
        f"{what} of this recipe does not fit: {str(error).splitlines()[0]}",
        expected=expected,
        mend="lower batch.chunk_tokens, set engine.activation_checkpointing to true, use more GPUs, or ask "
        "`largede plan` which knob to turn",
    )
