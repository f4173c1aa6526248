"""RESULTS.md: what was found, as tables that can be read in a minute."""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, get_args

from exactness.broken import BROKEN, NOTICED
from exactness.extras import EXTRAS
from exactness.factors import ABSENT, LEVELS, Case
from exactness.matrix import LOSS_TOLERANCE, Kind, Result
from exactness.measure import FLOAT32_TOLERANCE

COMMAND = "PYTHONPATH=tests:tests/training .venv/bin/python -m exactness"


def write_table(results: list[Result], expected: int, hardware: str) -> str:
    """Markdown. `expected`: how many questions there are; the rest has not been answered yet."""
    by_kind = {kind: [r for r in results if r.question.kind == kind] for kind in get_args(Kind)}
    product = by_kind["product"]
    wrong = [r for r in results if not r.is_as_it_should]
    parts = [
        introduction(results, expected, hardware),
        "## Verdict\n",
        f"{len(product):,} cases of the product, worst ‖Δ‖/‖g‖ of any parameter's gradient **{worst(product)}** "
        f"(tolerance {FLOAT32_TOLERANCE:.0e}), worst relative error of the loss {worst_loss(product)} "
        f"(tolerance {LOSS_TOLERANCE:.0e}). {replay_sentence(product)} "
        + (f"**{len(wrong)} answers are not as they should be** (listed at the end)." if wrong else "Nothing failed."),
        "\n## ZeRO × ranks\n",
        grid(product),
        "\n## Each level of each factor\n",
        levels_table(product),
        absent_sentence(),
        "\n## Which parameter is furthest off\n",
        parameters_table(product),
        "\n## Beyond the product\n",
        extras_text(),
        extras_table(by_kind["extra"]),
        "\n## Wrong on purpose\n",
        f"Each mistake in the cases of the pairwise array where it can show; its error must be above {NOTICED} and its "
        "tolerance. In bf16, where tolerances are wide: in up to four cases of that row for each number of ranks.\n",
        broken_table(by_kind["broken"], by_kind["broken in bf16"]),
    ]
    if wrong:
        parts += ["\n## Not as it should be\n", *(f"- {r.question.key}: {r.answer}" for r in wrong[:50])]
    return "\n".join(parts) + "\n"


def introduction(results: list[Result], expected: int, hardware: str) -> str:
    missing = f"\n{expected - len(results):,} of {expected:,} questions are not answered yet." * (
        len(results) < expected
    )
    return f"""# Exactness of the training step

    {COMMAND}

{commits(results)}, {hardware}, gloo, float32 unless said otherwise; interrupted, the command goes on.{missing}

The loss and every parameter's gradient of a step under DeepSpeed, against the plain twin: the same batch and chunks in
one process and one graph of autograd, without DeepSpeed, collectives or replay, with each rank's random numbers. The
error of a tensor is ‖Δ‖/‖g‖, the worst over ranks; no step is the first of its engine. The model is a T5 with two
layers and every kind of parameter; 24 queries (25 where ranks are ragged) with up to seven hard negatives each, some
of them right answers to be masked; temperature 0.01 for cosine, 0.1 for dot, whose scores then span as much.
"""


def commits(results: list[Result]) -> str:
    """`Commit abc` or, where answers of an earlier commit are shown, which rows are whose."""
    (most, _), *others = Counter(r.commit for r in results).most_common()
    told = f"Commit {most}"
    for name, count in others:
        rows = {r.question.kind if r.question.is_broken else r.question.name for r in results if r.commit == name}
        told += f" ({count:,} of the answers at {name}, in: {', '.join(sorted(rows))})"
    return told


def commit() -> str:
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"


def worst(results: Iterable[Result]) -> str:
    return shown([r.answer.error for r in results], max, ".1e")


def worst_loss(results: Iterable[Result]) -> str:
    return shown([r.answer.loss_error for r in results], max, ".1e")


def shown(values: list[float], choose: Callable[[list[float]], float], form: str) -> str:
    return format(choose(values), form) if values else "–"


def replay_sentence(product: list[Result]) -> str:
    dropped = [r for r in product if r.question.case.dropout]
    same = sum(r.answer.is_bitwise for r in dropped)
    return f"With dropout, {same:,} of {len(dropped):,} cases replayed every embedding to the last bit."


def table(head: list[str], rows: Iterable[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def of_level(results: list[Result], **levels: Any) -> list[Result]:
    def fits(case: Case) -> bool:
        return all(getattr(case, name) == level for name, level in levels.items())

    return [r for r in results if fits(r.question.case)]


def grid(product: list[Result]) -> str:
    rows = [
        [f"{ranks} rank{'s' * (ranks > 1)}", *(worst(of_level(product, ranks=ranks, zero=z)) for z in LEVELS["zero"])]
        for ranks in LEVELS["ranks"]
    ]
    return table(["", *(f"ZeRO-{z}" for z in LEVELS["zero"])], rows)


def levels_table(product: list[Result]) -> str:
    rows = []
    for name, levels in LEVELS.items():
        for level in levels:
            these = of_level(product, **{name: level})
            named = ("off", "on")[level] if isinstance(level, bool) else level
            rows.append([name.replace("_", " "), named, f"{len(these):,}", worst(these), worst_loss(these)])
    return table(["factor", "level", "cases", "worst gradient", "worst loss"], rows)


def absent_sentence() -> str:
    return "\nWhat does not exist: " + "; ".join(f"{what}, because {why}" for what, why in ABSENT.items()) + "."


def parameters_table(product: list[Result]) -> str:
    def kind(result: Result) -> str:
        return ".".join(result.answer.parameter.split(".")[-2:])

    def count(name: str) -> int:
        return sum(kind(r) == name for r in product)

    names = sorted({kind(r) for r in product}, key=count, reverse=True)
    rows = [[n, f"{count(n):,}", worst(r for r in product if kind(r) == n)] for n in names]
    return table(["parameter", "cases in which it is the worst", "worst gradient"], rows)


def extras_text() -> str:
    return """Cosine, mixed lengths, ragged ranks, seven hard negatives, one and two towers, dropout on and off.

**bf16.** The twin computes each chunk in bf16, as the engine does, reads scores from a pass without gradients, as the
step does (without dropout the CPU's attention takes another kernel there), and adds chunks and ranks in float32. What
remains is DeepSpeed's own rounding: each chunk's gradient becomes bf16, is added over W ranks and divided by W in bf16:
W + 1 roundings of at most 2⁻⁹ each; coalesced adds K more, one for each chunk. Where W is no power of two, and at
ZeRO-3, the backward pass (some 16 operations deep) rounds in other places than the twin's. The tolerance of a parameter
is (W + 1 [+ K] [+ 16]) · 2⁻⁹ · κ, κ being the sum of the lengths of its chunks' gradients over the length of their sum.
"""


def extras_table(results: list[Result]) -> str:
    rows = []
    for name, extra in EXTRAS.items():
        these = [r for r in results if r.question.name == name]
        share = shown([r.answer.share for r in these], max, ".2f")
        tolerance = shown([r.answer.error / r.answer.share for r in these if r.answer.share], max, ".1e")
        # What was run, not what exists: the two differ while the command is interrupted.
        zeros = ", ".join(str(z) for z in sorted({r.question.case.zero for r in these})) or "–"
        ranks = ", ".join(str(w) for w in sorted({r.question.case.ranks for r in these})) or "–"
        rows.append([name, extra.sentence, zeros, ranks, len(these), worst(these), share, tolerance, worst_loss(these)])
    head = ["row", "what is set", "ZeRO", "ranks", "cases", "worst gradient", "largest share of a tolerance"]
    head += ["widest tolerance met", "worst loss"]
    return table(head, rows)


def broken_table(in_float32: list[Result], in_bf16: list[Result]) -> str:
    rows = []
    for name, broken in BROKEN.items():
        row = [name, broken.sentence, broken.matters]
        for results in (in_float32, in_bf16):
            these = [r for r in results if r.question.name == name]
            row += [f"{sum(r.is_as_it_should for r in these)} of {len(these)}"]
            row += [shown([r.answer.error for r in these], min, ".2f")]
        rows.append(row)
    head = ["mistake", "what is wrong", "can show with", "noticed", "smallest error"]
    return table([*head, "noticed in bf16", "smallest error in bf16"], rows)
