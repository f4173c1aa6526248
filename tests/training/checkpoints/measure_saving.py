"""How much longer a step takes that saves, and how long its neighbours take while a thread writes.

    python tests/training/checkpoints/measure_saving.py --out FOLDER [--world 2] [--layers 8] [--rows 16] [--saves 5]

    python tests/training/checkpoints/measure_saving.py --out FOLDER --gpu --layers 12 --rows 512

Prints medians over several saves, with the run waiting for the disk and with a thread that writes: seconds by the
clock, and of the processor in the main thread, which tell something on a machine that is busy with other things too.
"""

import argparse
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from batches_for_tests import MadeBatch
from ranks import run_on_ranks

from largede.config.load import with_settings
from largede.config.recipe import EngineConfig, Recipe
from largede.files import write_json
from largede.training.checkpoints.background import CheckpointSaver
from largede.training.checkpoints.state import StreamPlace
from largede.training.construct import build_filled_engine
from largede.training.engine import join_ranks
from largede.training.gradcache import GradCacheStep
from largede.training.optimizers import client_optimizer, set_learning_rate

WARM_UP = 1
BETWEEN = 5


def measured(folder: str, layers: int, rows: int, saves: int, is_async: bool) -> dict[str, Any]:
    """Seconds of every step on this rank, by what it did: save, step while a thread writes, or step alone."""
    recipe = recipe_of(Path(folder), layers, rows)
    recipe = replace(recipe, run=replace(recipe.run, save_async=is_async))
    engine = build_filled_engine(recipe)
    step, batch = GradCacheStep(engine, recipe), MadeBatch(rows, 0).of_rank(dist.get_rank(), dist.get_world_size())
    checkpoints = Path(folder) / f"checkpoints-{is_async}"
    saver = CheckpointSaver(engine, recipe, checkpoints, lambda line: print(line, flush=True), lambda step, words: None)
    set_learning_rate(client_optimizer(engine), 1e-4)
    times: dict[str, list[tuple[float, float]]] = {"alone": [], "saving": [], "writing": []}
    for number in range(1, (WARM_UP + saves) * BETWEEN + 1):
        saves_now, was_writing = number % BETWEEN == 0, saver.flight is not None
        dist.barrier()
        began, began_working = time.perf_counter(), time.thread_time()
        step(batch)
        engine.step()
        saver.publish_when_written()
        if saves_now:
            saver.save(number, StreamPlace("none"), now=False)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took = time.perf_counter() - began, time.thread_time() - began_working
        if number > WARM_UP * BETWEEN:
            times["saving" if saves_now else "writing" if was_writing else "alone"].append(took)
    saver.finish()
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in engine.module.parameters())
    engine.destroy()
    return {"times": times, "parameters": parameters}


def recipe_of(folder: Path, layers: int, rows: int) -> Recipe:
    path = folder / f"zero3-{os.getpid()}.json"
    write_json(path, {"zero_optimization": {"stage": 3, "overlap_comm": False}})
    return with_settings(
        Recipe(),
        model__backbone="gtr-base",
        model__layers=layers,
        batch__queries=rows,
        batch__chunk_tokens=400,
        data__max_query_tokens=16,
        data__max_passage_tokens=24,
        data__lanes=1,
        optimizer__warmup_steps=0,
        engine__deepspeed=str(path),
        run__keep_checkpoints=1,
    )


def line_of(what: str, times: list[float]) -> str:
    if not times:
        return f"    {what:<36} none"
    low, high = min(times), max(times)
    return f"    {what:<36} median {statistics.median(times):6.3f} s  ({low:.3f} to {high:.3f}, {len(times)} steps)"


def print_times(alone: list[float], writing: list[float], saving: list[float]) -> None:
    print(line_of("a step that does nothing else", alone))
    print(line_of("a step while a checkpoint is written", writing))
    print(line_of("a step that saves", saving))
    longer = 100 * (statistics.median(saving) / statistics.median(alone + writing) - 1)
    print(f"    the step that saves takes {longer:.1f} % longer than the others", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--world", type=int, default=2)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--gpu", action="store_true", help="one rank, in this process, on its GPU")
    args = parser.parse_args()
    if args.gpu:
        args.world = 1
        join_ranks(EngineConfig())
    for is_async in (False, True):
        folder = args.out / str(is_async)
        folder.mkdir(parents=True)
        words = (str(folder), args.layers, args.rows, args.saves, is_async)
        found = measured(*words) if args.gpu else run_on_ranks(args.world, measured, folder, *words)[0]
        times = found["times"]
        print(f"run.save_async {is_async}: {found['parameters'] / 1e6:.1f} M parameters, {args.world} rank(s)")
        for column, unit in enumerate(("by the clock", "processor time of the main thread")):
            print(f"  {unit}")
            print_times(*([pair[column] for pair in times[what]] for what in ("alone", "writing", "saving")))


if __name__ == "__main__":
    main()
