"""How fast one GPU trains each size, how much memory it takes, and where the time goes.

    python tests/gpu/rates.py --model gtr-xxl --query-tokens 64 64 --passage-tokens 512 512 --profile
    python tests/gpu/rates.py --device cpu --model smoke --batch 32 --query-tokens 5 9 --passage-tokens 10 24

The model is built as in training, cut at birth, at ZeRO-3 with resident parameters: bf16 with float32 masters on a GPU,
float32 on a CPU. Chunk sizes and activation checkpointing are those of the size's shipped pre-training recipe. Texts
are token ids at random; neither shards nor a tokenizer are needed.

Model FLOPs, of which the utilisation counts: 6 for each weight of a matrix product and each real token (2 forward, 4
backward), 12 x layers x heads x width of a head x length for each token's attention, and the products of projection and
scores. Not counted are padding, GradCache's first pass (2 more for each weight) and recomputed activations (2 more).
The second figure, of all that is computed on real tokens, counts these two.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from made_batches import Lengths, made_batch

from largede.config.load import load_recipe, with_settings
from largede.config.recipe import Recipe
from largede.models.presets import PRESETS, T5Shape
from largede.streams.chunks import TokenRows
from largede.streams.tokenise import RankBatch
from largede.training.construct import build_filled_engine
from largede.training.engine import join_ranks, leave_ranks
from largede.training.gradcache import GradCacheStep

PROFILED_PAIRS = 256
"""Pairs of the step that is profiled: more would only be more of the same chunks."""
PEAK_TFLOPS = {"H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "B200": 2250.0}
"""Dense bf16 tera-FLOP/s by a part of the GPU's name, from NVIDIA's data sheets; the first that matches counts."""


class TimedStep(GradCacheStep):
    """The step, with the seconds of each of its parts."""

    def __init__(self, engine: Any, recipe: Recipe) -> None:
        super().__init__(engine, recipe)
        self.seconds: dict[str, float] = {}

    def represent(self, *args: Any) -> Any:
        return self.timed("first pass", super().represent, *args)

    def carry_back(self, *args: Any) -> None:
        self.timed("second pass", super().carry_back, *args)

    def timed(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        started = now()
        result = call(*args)
        self.seconds[name] = self.seconds.get(name, 0.0) + now() - started
        return result

    def whole(self, batch: RankBatch) -> dict[str, float]:
        """Seconds of every part of one step, optimizer included; what is left over is the loss."""
        self.seconds = {}
        started = now()
        self(batch)
        self.seconds["loss and the rest"] = now() - started - sum(self.seconds.values())
        self.timed("optimizer", self.engine.step)
        return self.seconds


class WarmStep(GradCacheStep):
    """The step cut to the first and the last chunk of each side and pass: every shape is met, hence compiled, once."""

    def equal_chunks(self, rows: TokenRows, budget_tokens: int) -> list[Any]:
        chunks = super().equal_chunks(rows, budget_tokens)
        return [chunks[0], chunks[-1]]


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one step: of the model, and with GradCache's first pass and recomputation."""

    model: float
    computed: float


def flops_of(shape: T5Shape, recipe: Recipe, batch: RankBatch) -> Flops:
    """Of real tokens, by the definition at the head of this file."""
    inner = shape.heads * shape.d_kv
    into = 2 if shape.feed_forward.startswith("gated") else 1
    weights = shape.layers * (4 * shape.d_model * inner + (into + 1) * shape.d_model * shape.d_ff)
    lengths = torch.from_numpy(batch.queries.lengths).double(), torch.from_numpy(batch.passages.lengths).double()
    tokens, squares = sum(float(x.sum()) for x in lengths), sum(float(x.square().sum()) for x in lengths)
    encoder = 2 * weights * tokens + 4 * shape.layers * inner * squares
    projection = 2 * shape.d_model * recipe.model.embedding_dim * (len(batch.queries) + len(batch.passages))
    scores = 2 * len(batch.queries) * len(batch.passages) * recipe.model.embedding_dim
    again = recipe.batch.gradient_cache + recipe.engine.activation_checkpointing
    return Flops(
        model=3 * (encoder + projection + scores),
        computed=(3 + again) * encoder + (3 + recipe.batch.gradient_cache) * projection + 3 * scores,
    )


def peak_tflops(given: float | None) -> float | None:
    """The GPU's dense bf16 rate as given, or by its name; none where neither is known."""
    if given or not torch.cuda.is_available():
        return given
    name = torch.cuda.get_device_name()
    return next((rate for part, rate in PEAK_TFLOPS.items() if part in name), None)


def measure(engine: Any, recipe: Recipe, batch: RankBatch, steps: int, shape: T5Shape) -> dict[str, Any]:
    """Figures of the median of some steps, after one short step that warms up."""
    WarmStep(engine, recipe)(batch)
    engine.step()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    step = TimedStep(engine, recipe)
    parts = sorted((step.whole(batch) for _ in range(steps)), key=lambda seconds: sum(seconds.values()))
    median = parts[len(parts) // 2]
    seconds, flops = sum(median.values()), flops_of(shape, recipe, batch)
    peak = peak_tflops(None)
    return {
        "pairs_per_s": len(batch) / seconds,
        "tokens_per_s": batch.real_tokens / seconds,
        "step_s": seconds,
        "steps_s": [sum(p.values()) for p in parts],
        "parts_frac": {name: part / seconds for name, part in median.items()},
        "model_tflop_per_s": flops.model / seconds / 1e12,
        "model_flop_utilisation": flops.model / seconds / 1e12 / peak if peak else None,
        "computed_flop_utilisation": flops.computed / seconds / 1e12 / peak if peak else None,
        "peak_allocated_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
        "peak_reserved_gib": torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else None,
        "mean_tokens": {"query": float(batch.queries.lengths.mean()), "passage": float(batch.passages.lengths.mean())},
    }


# Parts of the names of CUDA kernels and of CPU operators; the first kind that matches counts.
KINDS = {
    "collectives": r"nccl|all_gather|reduce_scatter|allreduce|c10d|gloo",
    "attention": r"flex|fmha|flash|sdpa|attention|softmax",
    "matrix products": r"gemm|nvjet|cutlass|cublas|xmma|aten::(add|b|badd|)mm$|aten::linear",
    "copies and casts": r"copy|memcpy|memset|aten::(to|cat|fill_|zero_)$|convert",
}


def kind_of(name: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name, re.IGNORECASE)), "the rest")


def profile(engine: Any, recipe: Recipe, batch: RankBatch) -> str:
    """One step under torch's profiler: share of the wall time by kind of kernel, and the costliest kernels."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    step = GradCacheStep(engine, recipe)
    with profiler(activities=activities) as found:
        started = now()
        step(batch)
        engine.step()
        wall_s = now() - started
    rows = found.key_averages()
    own = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    shares: dict[str, float] = {}
    for row in rows:
        # On a GPU the time of a kernel is counted once, with the kernel and not with the operator that started it.
        if not on_gpu or row.device_type == torch.autograd.DeviceType.CUDA:
            kind = kind_of(row.key)
            shares[kind] = shares.get(kind, 0.0) + getattr(row, own) / 1e6
    shares["idle (overlapping kernels count against it)"] = wall_s - sum(shares.values())
    lines = [f"{kind:45s} {seconds:9.3f} s  {100 * seconds / wall_s:5.1f} %" for kind, seconds in shares.items()]
    table = rows.table(sort_by=own, row_limit=25, max_name_column_width=70)
    return "\n".join([f"one step, {wall_s:.3f} s under the profiler", *lines, table])


def recipe_for(given: argparse.Namespace) -> Recipe:
    """The size's shipped pre-training recipe at ZeRO-3 with resident parameters; a plain one for the small presets."""
    on_gpu = given.device == "cuda"
    sized = given.model.startswith("gtr-")
    recipe = load_recipe(f"{given.model}-pretrain") if sized else Recipe()
    settings: dict[str, Any] = {
        "model__backbone": given.model,
        "model__layers": given.layers,
        "batch__queries": given.batch,
        "data__max_query_tokens": given.query_tokens[1],
        "data__max_passage_tokens": given.passage_tokens[1],
        "data__lanes": 1,
        "engine__deepspeed": given.deepspeed or ("zero3_bf16.json" if on_gpu else "zero3_cpu.json"),
        "engine__parameters": "resident",
        "engine__attention": given.attention,
    }
    if given.chunk_tokens:
        settings |= {
            "batch__chunk_tokens": given.chunk_tokens[0],
            "batch__no_grad_chunk_tokens": given.chunk_tokens[-1],
        }
    return with_settings(recipe, **settings)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    pair = {"type": int, "nargs": 2, "metavar": ("MEAN", "LIMIT")}
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--model", default="gtr-base", choices=PRESETS)
    parser.add_argument("--layers", type=int, help="keep so many layers; empty: all")
    parser.add_argument("--batch", type=int, default=2048, help="pairs in the batch")
    parser.add_argument("--query-tokens", default=[64, 64], help="mean equal to limit: all that long", **pair)
    parser.add_argument("--passage-tokens", default=[512, 512], **pair)
    parser.add_argument(
        "--spread", type=int, nargs=2, metavar=("QUERY", "PASSAGE"), help="measure lengths of these means as well"
    )
    parser.add_argument("--steps", type=int, default=3, help="measured steps for each kind of lengths")
    parser.add_argument("--chunk-tokens", type=int, nargs="+", help="with gradients, and without; empty: the recipe's")
    parser.add_argument("--attention", default="auto", choices=("auto", "packed", "padded"))
    parser.add_argument("--deepspeed", help="another file of ds_configs/, of ZeRO-3")
    parser.add_argument("--profile", action="store_true", help="write a profile of one smaller step")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of rates.jsonl and profiles.txt")
    return parser.parse_args()


def run(given: argparse.Namespace) -> None:
    recipe = recipe_for(given)
    shape = replace(PRESETS[given.model], layers=given.layers or PRESETS[given.model].layers)
    where = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    print(f"{given.model} on {where}, torch {torch.__version__}: building", flush=True)
    started = now()
    engine = build_filled_engine(recipe)
    build_s = now() - started
    kinds = [(Lengths(*given.query_tokens), Lengths(*given.passage_tokens))]
    if given.spread:
        limits = (given.query_tokens[1], given.passage_tokens[1])
        kinds.append((Lengths(given.spread[0], limits[0]), Lengths(given.spread[1], limits[1])))
    for queries, passages in kinds:
        batch = made_batch(given.batch, queries, passages, vocabulary=shape.vocabulary)
        found = {
            "model": given.model,
            "where": where,
            "batch": given.batch,
            "lengths": {"query": asdict(queries), "passage": asdict(passages)},
            "chunk_tokens": [recipe.batch.chunk_tokens, recipe.batch.no_grad_chunk_tokens],
            "activation_checkpointing": recipe.engine.activation_checkpointing,
            "build_s": build_s,
            **measure(engine, recipe, batch, given.steps, shape),
        }
        print(json.dumps(found, indent=2), flush=True)
        with (given.out / "rates.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    if given.profile:
        batch = made_batch(min(given.batch, PROFILED_PAIRS), *kinds[0], vocabulary=shape.vocabulary)
        text = profile(engine, recipe, batch)
        print(text, flush=True)
        with (given.out / "profiles.txt").open("a", encoding="utf-8") as file:
            file.write(f"{given.model}, {batch.real_tokens:,} tokens on {where}: {text}\n\n")


def main() -> None:
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    join_ranks(recipe_for(given).engine)
    try:
        run(given)
    except torch.OutOfMemoryError as error:
        # A size that does not fit is a finding, not a failure.
        reason = str(error).splitlines()[0]
        print(f"{given.model} is left out: {reason}")
        with (given.out / "rates.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"model": given.model, "batch": given.batch, "left_out": reason}) + "\n")
    leave_ranks(all_ranks_leave=True)


if __name__ == "__main__":
    main()
