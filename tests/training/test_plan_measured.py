"""Predicted beside measured live tensor bytes, by kind, of real steps on the CPU. `pytest -s` prints the table.

The model is small, with the proportions of a large one: most parameters in the layers, most memory in activations. One
process group per number of ranks serves all its cases. The CPU check covers the `math` kernel of attention.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from measured_step import Peaks, measure_step
from ranks import run_on_ranks

from largede.config.load import with_settings
from largede.config.recipe import Recipe
from largede.files import write_json
from largede.models.presets import PRESETS, T5Shape
from largede.training.plan import Machine, Plan, predict

MODEL = T5Shape(layers=3, d_model=256, heads=4, d_kv=64, d_ff=1024, vocabulary=512)
TOLERANCE = 0.15
WORTH_COUNTING = 0.02
"""Share of the measured total below which a kind is not held against its prediction."""

PRECISIONS: dict[str, Any] = {
    "float32": {},
    "autocast": {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}},
    "bf16": {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}},
}
CHECKPOINTED = {"engine__activation_checkpointing": True}
COALESCED = {"engine__gradient_reduction": "coalesced"}
MANY_SHORT = {"batch__queries": 2048, "data__max_query_tokens": 4, "data__max_passage_tokens": 4, "model__layers": 1}

# (ZeRO stage, precision, settings) of each case, by its name in the table.
ALONE: dict[str, tuple[int, str, dict[str, Any]]] = {
    "plain": (0, "float32", {}),
    "two towers": (0, "float32", {"model__layout": "ade"}),
    "coalesced": (2, "float32", COALESCED),
    "two towers, coalesced": (2, "autocast", {"model__layout": "ade", **COALESCED}),
    "AdamW": (3, "float32", {"optimizer__name": "adamw"}),
    "long texts": (3, "float32", {"data__max_passage_tokens": 256}),
    "kept graphs": (3, "float32", {"batch__gradient_cache": False}),
    "recomputed, dropout": (3, "autocast", {**CHECKPOINTED, "model__dropout": 0.1}),
    "2,048 pairs of short texts": (3, "float32", {**MANY_SHORT, "data__hard_negatives": 1}),
}
TOGETHER: dict[str, tuple[int, str, dict[str, Any]]] = {
    "plain": (1, "float32", {}),
    "autocast": (2, "autocast", {}),
    "bf16 parameters": (2, "bf16", {}),
    "bf16, dropout": (2, "bf16", {"model__dropout": 0.1}),
    "coalesced": (3, "float32", COALESCED),
    "recomputed": (3, "float32", CHECKPOINTED),
    "AdamW": (3, "autocast", {"optimizer__name": "adamw"}),
    "resident": (3, "bf16", {"engine__parameters": "resident"}),
    "two towers": (3, "float32", {"model__layout": "ade"}),
    "frozen embedder": (3, "bf16", {"model__layout": "ade-fte"}),
}


def measured_recipe(folder: Path, stage: int, precision: str, settings: dict[str, Any]) -> Recipe:
    zero = {"stage": stage, "overlap_comm": False, "reduce_bucket_size": 400_000, "sub_group_size": 1_000_000}
    zero |= {"stage3_prefetch_bucket_size": 100_000, "stage3_param_persistence_threshold": 1_000}
    path = folder / f"zero{stage}-{precision}.json"
    write_json(path, {"zero_optimization": zero, **PRECISIONS[precision]})
    common = {
        "model__backbone": "measured",
        "model__embedding_dim": 128,
        "batch__queries": 16,
        "batch__chunk_tokens": 512,
        "data__max_query_tokens": 16,
        "data__max_passage_tokens": 64,
        "data__lanes": 1,
        "engine__deepspeed": str(path),
        "optimizer__warmup_steps": 0,
    }
    return with_settings(Recipe(), **{**common, **settings})


def measure_cases(folder: str, names: list[str]) -> list[tuple[Plan, Peaks]]:
    PRESETS["measured"] = MODEL
    cases = ALONE if dist.get_world_size() == 1 else TOGETHER
    found = []
    for name in names:
        recipe = measured_recipe(Path(folder), *cases[name])
        found.append((predict(recipe, Machine(gpus=dist.get_world_size(), device="cpu")), measure_step(recipe)))
    return found


def predicted_at(plan: Plan, moment: str, measured: dict[str, int]) -> dict[str, float]:
    """The predicted bytes of a moment. A backward pass has two full moments; where they come to nearly the same, the
    one whose kinds are nearer to the measured is meant."""
    candidates = [plan.moments[moment]] + ([plan.moments["reduction"]] if moment == "backward" else [])
    most = max(sum(c.values()) for c in candidates)
    near = [c for c in candidates if sum(c.values()) > 0.93 * most]
    return min(near, key=lambda c: sum(abs(c[kind] - measured.get(kind, 0)) for kind in c))


def ratio(ours: float, theirs: float) -> str:
    return f"{ours / 2**20:.1f} / {theirs / 2**20:.1f} ({ours / theirs:.2f})"


def table_row(title: str, plan: Plan, peaks: Peaks, moment: str) -> str:
    """Kinds at the fullest moment, then the totals of the others."""
    measured = peaks[moment]
    predicted = predicted_at(plan, moment, measured)
    worth = WORTH_COUNTING * measured["total"]
    cells = [f"{title} ({moment})"]
    cells += [ratio(predicted[k], measured.get(k, 0)) if measured.get(k, 0) > worth else "" for k in predicted]
    cells.append(ratio(sum(predicted.values()), measured["total"]))
    cells += [f"{total_at(plan, m) / peaks[m]['total']:.2f}" for m in peaks]
    return "| " + " | ".join(cells) + " |"


def total_at(plan: Plan, moment: str) -> float:
    moments = ("backward", "reduction") if moment == "backward" else (moment,)
    return max(sum(plan.moments[m].values()) for m in moments)


def disagreements(plan: Plan, peaks: Peaks, fullest: str) -> Iterator[str]:
    """Every kind worth counting at the fullest moment, and the total of every moment."""
    measured = peaks[fullest]
    for kind, ours in predicted_at(plan, fullest, measured).items():
        theirs = measured.get(kind, 0)
        if abs(ours - theirs) > max(TOLERANCE * theirs, WORTH_COUNTING * measured["total"]):
            yield f"{fullest}, {kind}: predicted {ours:,.0f}, measured {theirs:,}"
    for moment, kinds in peaks.items():
        if abs(total_at(plan, moment) / kinds["total"] - 1) > TOLERANCE:
            yield f"{moment}: predicted {total_at(plan, moment):,.0f}, measured {kinds['total']:,}"


@pytest.mark.parametrize("world", [1, 2])
def test_predicted_bytes_are_the_measured_ones(world: int, tmp_path: Path) -> None:
    cases = ALONE if world == 1 else TOGETHER
    every_rank = run_on_ranks(world, measure_cases, tmp_path, str(tmp_path), list(cases))
    rows, wrong = [], []
    for number, (name, (stage, precision, _)) in enumerate(cases.items()):
        # Ranks hold unlike slices; what has to fit is the fullest.
        plan, peaks = max(
            (results[number] for results in every_rank), key=lambda found: max(p["total"] for p in found[1].values())
        )
        fullest = max(peaks, key=lambda moment: peaks[moment]["total"])
        title = f"{world} rank{'s' * (world > 1)}, ZeRO-{stage}, {precision}: {name}"
        rows.append(table_row(title, plan, peaks, fullest))
        wrong += [f"{title}: {problem}" for problem in disagreements(plan, peaks, fullest)]
    print("\n" + "\n".join(rows))
    assert not wrong, "\n".join(wrong)
