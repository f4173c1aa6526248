"""A plan as lines for a terminal, and as JSON."""

from typing import Any

from largede.training.plan.advice import Advice, advise
from largede.training.plan.duration import mean_tokens
from largede.training.plan.machine import GIB
from largede.training.plan.memory import KINDS
from largede.training.plan.predict import DAY_S, Plan

SAYS = {
    "parameters": "parameters as the model computes with them",
    "gathered": "parameters of other ranks, gathered for use",
    "gradients": "gradients",
    "optimizer": "float32 masters, moments, temporaries",
    "activations": "activations of one chunk",
    "representations": "representations, their gradients, scores",
    "buffers": "DeepSpeed's buckets",
}


def memory_lines(plan: Plan) -> list[str]:
    """GiB on one GPU by kind at the fullest moment of the step."""
    lines = [f"  {kind:<16}{plan.memory[kind] / GIB:>9.2f} GiB  {SAYS[kind]}" for kind in KINDS if plan.memory[kind]]
    lines.append(f"  {'reserve':<16}{plan.machine.reserve_gib:>9.2f} GiB  context, libraries, gaps (--reserve-gib)")
    needed_gib = plan.peak_bytes / GIB + plan.machine.reserve_gib
    lines.append(
        f"  {'together':<16}{needed_gib:>9.2f} GiB  of {plan.machine.gpu_gib:.3g}, fullest at: {plan.peak_moment}"
    )
    if plan.host_bytes_per_node:
        limit = "" if plan.machine.host_gib is None else f" of {plan.machine.host_gib:g}"
        held = "offloaded tensors, a checkpoint being written" if plan.recipe.run.save_async else "offloaded tensors"
        lines.append(f"  {'main memory':<16}{plan.host_bytes_per_node / GIB:>9.2f} GiB{limit} for each node: {held}")
    return lines


def plan_lines(plan: Plan) -> list[str]:
    return [
        *head_lines(plan),
        "",
        "Memory of one GPU" if plan.machine.device == "gpu" else "Memory of one rank",
        *memory_lines(plan),
        "",
        "Time of one step",
        *time_lines(plan),
        "",
        *assumption_lines(plan),
        "",
        *verdict_lines(plan),
    ]


def head_lines(plan: Plan) -> list[str]:
    recipe, setup, machine = plan.recipe, plan.setup, plan.machine
    model = setup.model
    nodes = f" on {machine.nodes} nodes" if machine.nodes > 1 else ""
    return [
        f"{recipe.model.backbone} ({model.parameters / 1e6:,.0f} M parameters, {recipe.model.layout}) on "
        f"{machine.gpus} x {machine.gpu_gib:g} GiB{nodes}; ZeRO-{setup.zero.stage}, {setup.zero.precision}, "
        f"{recipe.optimizer.name}",
        f"batch {recipe.batch.queries:,}, texts up to {recipe.data.longest_query_tokens} and "
        f"{recipe.data.longest_passage_tokens} tokens, attention {ATTENTION[setup.kernel]}",
    ]


ATTENTION = {"flex": "packed", "dense": "packed (dense scores)", "efficient": "padded", "math": "padded (CPU)"}


def time_lines(plan: Plan) -> list[str]:
    time = plan.time
    rows = [
        ("arithmetic", time.arithmetic_s, ""),
        ("gathers", time.gathers_s, "parameters between GPUs" + (", beside the arithmetic" if time.overlaps else "")),
        (
            "reductions",
            time.reductions_s,
            "gradients between GPUs" + (", beside the arithmetic" if time.overlaps else ""),
        ),
        ("representations", time.representations_s, ""),
        ("optimizer", time.optimizer_s, ""),
        (
            "loader",
            time.loader_s,
            "beside the step" if time.loader_is_apart else "in the training process, before the step",
        ),
    ]
    lines = [f"  {name:<16}{seconds:>9.3f} s  {says}".rstrip() for name, seconds, says in rows]
    return [
        *lines,
        f"  {'together':<16}{time.step_s:>9.3f} s  bound by: {time.bound_by}",
        f"  {plan.pairs_per_s:,.0f} pairs/s, model FLOP utilisation {100 * plan.model_flop_utilisation:.0f} %",
        f"  {plan.recipe.run.steps:,} steps: {duration(plan.days)}; {plan.pairs:,} pairs, "
        f"{plan.tokens / 1e9:,.1f} billion tokens, about {plan.text_bytes / 1e9:,.0f} GB of text",
    ]


def duration(days: float) -> str:
    if days >= 1:
        return f"{days:,.1f} days"
    return f"{days * 24:.1f} hours" if days * 24 >= 1 else f"{days * DAY_S / 60:.1f} minutes"


def assumption_lines(plan: Plan) -> list[str]:
    machine = plan.machine
    query, passage = mean_tokens(plan.setup, machine)
    guessed = [] if machine.query_tokens and machine.passage_tokens else ["half the limits where not given"]
    return [
        f"assumed: texts of {query:g} and {passage:g} tokens on average ({', '.join(guessed) or 'given'}), "
        f"{machine.gpu_tflops:g} TFLOP/s at {100 * machine.mfu:g} %,",
        f"  {machine.link_gbs:g} GB/s between GPUs of a node, {machine.network_gbs:g} GB/s for each GPU between nodes, "
        f"{machine.loader_pairs_per_s:,.0f} pairs/s for each loader process",
    ]


def verdict_lines(plan: Plan) -> list[str]:
    advice = advise(plan)
    device = "GPU" if plan.machine.device == "gpu" else "rank"
    if plan.fits:
        lines = [f"It fits: {plan.free_bytes / GIB:.1f} GiB of each {device} stay free."]
        return lines + [f"  {faster(plan, a)}" for a in advice] if advice else [*lines, "No knob makes it faster."]
    missing = f"{-plan.free_bytes / GIB:.1f} GiB of each {device}" if plan.free_bytes < 0 else "main memory"
    largest = max(plan.memory, key=plan.memory.__getitem__)
    lines = [f"It does not fit: {missing} are missing, most is {largest} (at: {plan.peak_moment})."]
    return lines + [f"  {fitting(plan, a)}" for a in advice] if advice else [*lines, "Nothing tried here makes it fit."]


def faster(plan: Plan, advice: Advice) -> str:
    gain = 100 * (plan.time.step_s / advice.plan.time.step_s - 1)
    return f"{gain:.0f} % faster with {advice.change.flags} ({advice.plan.free_bytes / GIB:.1f} GiB free)"


def fitting(plan: Plan, advice: Advice) -> str:
    times = advice.plan.time.step_s / plan.time.step_s
    return f"fits with {advice.change.flags} ({advice.plan.free_bytes / GIB:.1f} GiB free, {times:.2f} times the time)"


def plan_json(plan: Plan) -> dict[str, Any]:
    machine, time = plan.machine, plan.time
    return {
        "machine": {name: getattr(machine, name) for name in machine.__dataclass_fields__},
        "parameters": plan.setup.model.parameters,
        "fits": plan.fits,
        "peak_moment": plan.peak_moment,
        "peak_bytes": plan.peak_bytes,
        "free_bytes": plan.free_bytes,
        "memory_bytes": plan.memory,
        "memory_bytes_by_moment": plan.moments,
        "host_bytes_per_node": plan.host_bytes_per_node,
        "step_s": time.step_s,
        "seconds": {
            name: getattr(time, f"{name}_s")
            for name in ("arithmetic", "gathers", "reductions", "representations", "optimizer", "loader")
        },
        "bound_by": time.bound_by,
        "pairs_per_s": plan.pairs_per_s,
        "model_flop_utilisation": plan.model_flop_utilisation,
        "days": plan.days,
        "tokens": plan.tokens,
        "text_bytes": plan.text_bytes,
        "advice": [
            {"flags": a.change.flags, "step_s": a.plan.time.step_s, "free_bytes": a.plan.free_bytes}
            for a in advise(plan)
        ],
    }
