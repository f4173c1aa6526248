"""The share of a step that one rank of many waits for its data, at the pace `largede plan` predicts.

    PYTHONPATH=tests/streams .venv/bin/python -m waiting PAIRS... --tokenizer FOLDER

The training process of rank 0 takes batch after batch from its loader and sleeps in between for the predicted time of
a step, as one that waits for a GPU does. Warm-up steps are not counted.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

WARM_UP = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", type=Path)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--recipes", nargs="+", default=["gtr-base-pretrain", "gtr-large-pretrain", "gtr-xl-pretrain"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0, help="measured for each recipe (%(default)s)")
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        from data_tools.shard import ShardSettings, shard

        shards = shard(args.pairs, Path(folder) / "shards", ShardSettings(shard_pairs=4096)).index.folder
        for name in args.recipes:
            for workers in args.workers:
                report(name, shards, args, workers)


def report(name: str, shards: Path, args: argparse.Namespace, workers: int) -> None:
    from largede.config.load import load_recipe
    from largede.streams.batches import PairBatches
    from largede.streams.tokenise import PairTokeniser
    from largede.training.plan import Machine, predict

    recipe = load_recipe(name)
    plan = predict(recipe, Machine(gpus=args.gpus, nodes=max(1, args.gpus // 8), gpu_gib=80))
    stream = PairBatches(
        shards,
        batch_size=recipe.batch.queries,
        lanes=recipe.data.lanes,
        seed=0,
        rank=0,
        world_size=args.gpus,
        workers=workers,
        transform=PairTokeniser(args.tokenizer, replace(recipe.data, shards=str(shards))),
    )
    step_s = plan.time.gpu_s
    steps = WARM_UP + max(30, round(args.seconds / step_s))
    waits = waits_of(iter(stream), step_s, steps)
    rate = recipe.batch.queries / args.gpus / step_s
    share = sum(waits) / (sum(waits) + step_s * len(waits))
    print(
        f"{name}, {workers} workers: step {step_s * 1000:.1f} ms, {rate:,.0f} pairs/s of the rank, waiting {share:.2%}"
    )
    print(f"    median {median(waits) * 1000:.3f} ms, longest {max(waits) * 1000:.1f} ms, {len(waits)} steps")


def waits_of(stream: object, step_s: float, steps: int) -> list[float]:
    waits = []
    for _ in range(steps):
        started = time.perf_counter()
        next(stream)  # type: ignore[call-overload]
        waits.append(time.perf_counter() - started)
        time.sleep(step_s)
    return waits[WARM_UP:]


if __name__ == "__main__":
    main()
