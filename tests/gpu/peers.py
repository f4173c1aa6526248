"""largede's step beside sentence-transformers' cached loss: pairs/s and peak memory, like with like.

    python tests/gpu/peers.py --model mini --layers 4 --batch 256 --passage-tokens 60 128     # a CPU
    python tests/gpu/peers.py --model gtr-base --batch 2048 --query-tokens 16 64 --passage-tokens 200 512 --dtype bf16

Both get the same weights (by way of an exported folder), token ids, batch, temperature, both directions of the loss,
AdamW at learning rate 0, and precision: float32, or bf16 by autocast over float32 parameters. Ours runs in the
DeepSpeed engine as a user's would, and sorts and pads or packs within its measured time. Theirs is given its columns
tokenised, padded and in the order of the data, as its trainer would give them. First loss and gradients are compared on
a small batch; then the best chunk size of each is searched; then the two are measured in turns; last, each alone in a
process of its own, for its peak memory.
"""

import argparse
import contextlib
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from made_batches import Lengths, made_batch

sys.path.append(str(Path(__file__).parents[1] / "training"))
from peer_twin import (
    as_sentence_transformer,
    columns_of,
    directions_of,
    on_device,
    peer_gradients,
    peer_loss,
    watch_gradients,
    worst_difference,
)

from largede.config.load import with_settings
from largede.config.recipe import Recipe
from largede.models.build import build_dual_encoder
from largede.models.presets import PRESETS
from largede.streams.tokenise import RankBatch
from largede.training.engine import build_engine, join_ranks, leave_ranks
from largede.training.gradcache import GradCacheStep
from largede.training.optimizers import client_optimizer

PAIRS_COMPARED = 32
"""Pairs in the batch whose loss and gradients are compared."""


class Ours:
    """The DeepSpeed engine and GradCacheStep; its chunk size is a number of tokens."""

    unit = "tokens per chunk"

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.engine = build_engine(build_dual_encoder(recipe.model), recipe)
        self.gradients_seen = watch_gradients(self.engine)
        for group in client_optimizer(self.engine).param_groups:
            group["lr"] = 0.0

    def use(self, chunk: int, batch: RankBatch) -> None:
        self.batch = batch
        self.step = GradCacheStep(self.engine, with_settings(self.recipe, batch__chunk_tokens=chunk))

    def gradient(self) -> float:
        return self.step(self.batch).score.loss / directions_of(self.recipe)

    def finish(self) -> None:
        self.engine.step()

    def gradients(self) -> dict[str, torch.Tensor]:
        return {name: gradient / directions_of(self.recipe) for name, gradient in self.gradients_seen.items()}

    def stop_watching(self) -> None:
        """The copies of the gradients shall not be measured."""
        self.gradients_seen.clear()
        client_optimizer(self.engine)._optimizer_step_pre_hooks.clear()


class Theirs:
    """SentenceTransformer and its cached loss; its chunk size is a number of rows."""

    unit = "rows per mini-batch"

    def __init__(self, recipe: Recipe, device: torch.device, dtype: str) -> None:
        self.recipe = recipe
        self.device = device
        with tempfile.TemporaryDirectory() as folder:
            exported = Path(folder) / "model"
            self.peer = as_sentence_transformer(build_dual_encoder(recipe.model), exported, str(device))
        if recipe.engine.activation_checkpointing:
            self.peer.gradient_checkpointing_enable()
        if dtype == "bf16":
            # As accelerate does it: the model in autocast, its output and so the loss in float32.
            forward = self.peer.forward
            self.peer.forward = lambda features: in_autocast(forward, features, device)
        self.optimizer = torch.optim.AdamW(self.peer.parameters(), lr=0.0, weight_decay=0.0)

    def use(self, chunk: int, batch: RankBatch) -> None:
        self.columns = columns_of(batch)
        self.loss = peer_loss(self.peer, self.recipe, chunk)

    def gradient(self) -> float:
        loss = self.loss(on_device(self.columns, self.device), None)
        loss.backward()
        return loss.item()

    def finish(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradients(self) -> dict[str, torch.Tensor]:
        return peer_gradients(self.peer)

    def stop_watching(self) -> None:
        pass


def in_autocast(forward: Callable[..., Any], features: Any, device: torch.device) -> Any:
    with torch.autocast(device.type, torch.bfloat16):
        features = forward(features)
    return {**features, "sentence_embedding": features["sentence_embedding"].float()}


@dataclass(frozen=True)
class Seconds:
    """One step: to the gradient, and with the optimizer's step."""

    gradient: float
    whole: float


def timed_step(system: Any, device: torch.device) -> Seconds:
    started = now(device)
    system.gradient()
    middle = now(device)
    system.finish()
    return Seconds(middle - started, now(device) - started)


def now(device: torch.device) -> float:
    """Wall time once the GPU has done its work; on a CPU, the time this process had of it, whoever else is busy."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def agreement(ours: Ours, theirs: Theirs, batch: RankBatch, chunk_tokens: int) -> dict[str, Any]:
    """How far loss and gradients of the two are apart on a small batch, relative to theirs."""
    ours.use(chunk_tokens, batch)
    theirs.use(max(1, PAIRS_COMPARED // 4), batch)
    our_loss, their_loss = ours.gradient(), theirs.gradient()
    their_gradients = theirs.gradients()
    for system in (ours, theirs):
        system.finish()
    our_gradients = ours.gradients()
    ours.stop_watching()
    error, name = worst_difference(our_gradients, their_gradients)
    flat = [torch.cat([g.double().flatten() for _, g in sorted(s.items())]) for s in (our_gradients, their_gradients)]
    return {
        "loss": abs(our_loss - their_loss) / their_loss,
        "worst_gradient": error,
        "its_name": name,
        "whole_gradient": float((flat[0] - flat[1]).norm() / flat[1].norm()),
        "cosine": float(torch.cosine_similarity(flat[0], flat[1], dim=0)),
    }


def best_chunk(system: Any, candidates: list[int], batch: RankBatch, device: torch.device) -> int:
    """The candidate with the fastest step of two, taken in two rounds; what does not fit is passed over."""
    found = dict.fromkeys(candidates, float("inf"))
    for chunk in candidates * 2:
        system.use(chunk, batch)
        try:
            found[chunk] = min(found[chunk], timed_step(system, device).whole)
        except torch.OutOfMemoryError:
            gc.collect()
            torch.cuda.empty_cache()
    print(f"  {type(system).__name__}, seconds by {system.unit}: {found}", flush=True)
    return min(found, key=found.__getitem__)


def in_turns(systems: dict[str, Any], rounds: int, steps: int, device: torch.device) -> dict[str, list[Seconds]]:
    """Every round measures each system `steps` times, in changing order; a round's figure is its median step."""
    found: dict[str, list[Seconds]] = {name: [] for name in systems}
    for number in range(rounds):
        for name in sorted(systems, reverse=bool(number % 2)):
            timed = [timed_step(systems[name], device) for _ in range(steps)]
            parts = ([t.gradient for t in timed], [t.whole for t in timed])
            found[name].append(Seconds(*map(statistics.median, parts)))
    return found


def ratios(found: dict[str, list[Seconds]], part: str) -> dict[str, Any]:
    """How many times faster ours is: ratio of the medians, and the lowest and highest of a round."""
    rounds = [getattr(t, part) / getattr(o, part) for o, t in zip(found["ours"], found["theirs"], strict=True)]
    median = {name: statistics.median(getattr(s, part) for s in found[name]) for name in found}
    return {
        "ratio": median["theirs"] / median["ours"],
        "lowest": min(rounds),
        "highest": max(rounds),
        "median_s": median,
    }


def peak_bytes_of_step(system: Any, device: torch.device) -> int:
    """Bytes of tensors at the peak of one step, weights and optimizer included, after two steps that settle things."""
    for _ in range(2):
        timed_step(system, device)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        timed_step(system, device)
        return torch.cuda.max_memory_allocated()
    held = sum({s.data_ptr(): s.nbytes() for s in map(storage, gc.get_objects()) if s is not None}.values())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        timed_step(system, device)
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = highest = 0
    for event in sorted(changes, key=lambda e: e.start_ns()):
        total += event.nbytes()
        highest = max(highest, total)
    return held + highest


def storage(thing: Any) -> Any:
    with contextlib.suppress(Exception):
        return thing.untyped_storage() if isinstance(thing, torch.Tensor) else None
    return None


def preset_of(given: argparse.Namespace) -> str:
    """The preset's name, or that of a shape made from it with another number of layers, more of them too."""
    if given.layers is None:
        return given.model
    name = f"{given.model}, {given.layers} layers"
    PRESETS[name] = replace(PRESETS[given.model], layers=given.layers)
    return name


def recipe_of(given: argparse.Namespace) -> Recipe:
    parts = ["zero1", *["cpu"] * (given.device == "cpu"), *["bf16"] * (given.dtype == "bf16")]
    return with_settings(
        Recipe(),
        model__backbone=preset_of(given),
        batch__queries=given.batch,
        batch__chunk_tokens=max(given.chunk_tokens),
        data__max_query_tokens=given.query_tokens[1],
        data__max_passage_tokens=given.passage_tokens[1],
        data__hard_negatives=given.hard_negatives,
        data__lanes=1,
        optimizer__name="adamw",
        engine__deepspeed=given.deepspeed or "_".join(parts) + ".json",
        engine__gradient_reduction=given.gradient_reduction,
        engine__attention=given.attention,
        engine__activation_checkpointing=given.activation_checkpointing,
        engine__cpu_threads=given.threads,
    )


def batch_of(given: argparse.Namespace, rows: int) -> RankBatch:
    return made_batch(
        rows,
        Lengths(*given.query_tokens),
        Lengths(*given.passage_tokens),
        vocabulary=PRESETS[given.model].vocabulary,
        hard_negatives=given.hard_negatives,
    )


def build(name: str, given: argparse.Namespace, device: torch.device) -> Any:
    recipe = recipe_of(given)
    return Ours(recipe) if name == "ours" else Theirs(recipe, device, given.dtype)


def peak_in_own_process(name: str, chunk: int) -> int:
    words = [sys.executable, *sys.argv, "--memory-of", name, str(chunk)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1])["peak_bytes"])


def print_peak(given: argparse.Namespace, device: torch.device) -> None:
    name, chunk = given.memory_of
    system = build(name, given, device)
    if name == "ours":
        system.stop_watching()
    system.use(int(chunk), batch_of(given, given.batch))
    print(json.dumps({"peak_bytes": peak_bytes_of_step(system, device)}))


def compare(given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    systems = {name: build(name, given, device) for name in ("ours", "theirs")}
    close = agreement(systems["ours"], systems["theirs"], batch_of(given, PAIRS_COMPARED), max(given.chunk_tokens))
    print(f"  agreement on {PAIRS_COMPARED} pairs: {close}", flush=True)
    batch = batch_of(given, given.batch)
    candidates = {"ours": given.chunk_tokens, "theirs": given.mini_batch}
    chunks = {name: best_chunk(systems[name], candidates[name], batch, device) for name in systems}
    for name, system in systems.items():
        system.use(chunks[name], batch)
    found = in_turns(systems, given.repeats, given.steps, device)
    systems.clear()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    peaks = {name: peak_in_own_process(name, chunks[name]) for name in chunks}
    return {
        "chunks": chunks,
        "agreement": close,
        "gradient": ratios(found, "gradient"),
        "whole": ratios(found, "whole"),
        "pairs_per_s": {n: given.batch / s for n, s in ratios(found, "whole")["median_s"].items()},
        "peak_gib": {name: peak / 2**30 for name, peak in peaks.items()},
        "peak_ratio": peaks["theirs"] / peaks["ours"],
        "mean_tokens": {"query": batch.queries.lengths.mean(), "passage": batch.passages.lengths.mean()},
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    pair = {"type": int, "nargs": 2, "metavar": ("MEAN", "LIMIT")}
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--model", default="mini", choices=PRESETS)
    parser.add_argument("--layers", type=int, help="layers, where fewer or more than the preset's; empty: its own")
    parser.add_argument("--batch", type=int, default=256, help="pairs in the batch")
    parser.add_argument("--hard-negatives", type=int, default=0)
    parser.add_argument("--query-tokens", default=[12, 32], help="mean equal to limit: all that long", **pair)
    parser.add_argument("--passage-tokens", default=[60, 128], **pair)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bf16"))
    parser.add_argument("--steps", type=int, default=1, help="steps of each in one round")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--chunk-tokens", type=int, nargs="+", default=[1024, 2048, 4096, 8192], help="ours to try")
    parser.add_argument("--mini-batch", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256], help="theirs to try")
    parser.add_argument("--gradient-reduction", default="per_chunk", choices=("per_chunk", "coalesced"))
    parser.add_argument("--attention", default="auto", choices=("auto", "packed", "padded"))
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--deepspeed", help="another file of ds_configs/ for ours")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU, of both")
    parser.add_argument("--out", type=Path, help="file of JSON lines to add the result to")
    parser.add_argument("--memory-of", nargs=2, metavar=("SYSTEM", "CHUNK"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    device = torch.device(given.device)
    join_ranks(recipe_of(given).engine)
    if given.memory_of:
        print_peak(given, device)
        leave_ranks(all_ranks_leave=True)
        return
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"seconds of {given.threads} CPU thread(s)"
    print(f"{given.model}, {given.batch} pairs, {given.dtype}, {where}, torch {torch.__version__}", flush=True)
    result = compare(given, device)
    leave_ranks(all_ranks_leave=True)
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with given.out.open("a", encoding="utf-8") as file:
            settings = {name: value for name, value in vars(given).items() if name not in ("out", "memory_of")}
            file.write(json.dumps({"settings": settings, "where": where, **result}) + "\n")


if __name__ == "__main__":
    main()
