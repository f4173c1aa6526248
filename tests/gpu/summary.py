"""The figures of one run of run.sh as two tables: `python tests/gpu/summary.py FOLDER`."""

import json
import sys
from pathlib import Path
from typing import Any


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ("---",) * len(header), *rows])


def number(value: float | None, form: str) -> str:
    return "not known" if value is None else format(value, form)


def rate_row(found: dict[str, Any]) -> tuple[str, ...]:
    if "left_out" in found:
        return (found["model"], "left out", found["left_out"], *("",) * 5)
    mean = found["mean_tokens"]
    return (
        found["model"],
        f"{found['batch']:,}, {mean['query']:.0f} / {mean['passage']:.0f}",
        f"{found['pairs_per_s']:,.1f}",
        f"{found['tokens_per_s']:,.0f}",
        number(found["model_flop_utilisation"], ".1%"),
        number(found["computed_flop_utilisation"], ".1%"),
        number(found["peak_allocated_gib"], ".1f"),
        ", ".join(f"{name} {share:.0%}" for name, share in found["parts_frac"].items()),
    )


def peer_row(found: dict[str, Any]) -> tuple[str, ...]:
    given, whole = found["settings"], found["whole"]
    mean = found["mean_tokens"]
    return (
        given["model"] + (f", {given['layers']} layers" if given["layers"] else ""),
        given["dtype"],
        f"{given['batch']:,}, {mean['query']:.0f} / {mean['passage']:.0f}",
        f"{found['pairs_per_s']['ours']:,.1f}",
        f"{found['pairs_per_s']['theirs']:,.1f}",
        f"{whole['ratio']:.2f} ({whole['lowest']:.2f} to {whole['highest']:.2f})",
        f"{found['gradient']['ratio']:.2f}",
        f"{found['peak_gib']['ours']:.2f} / {found['peak_gib']['theirs']:.2f}",
        f"{found['chunks']['ours']} tokens / {found['chunks']['theirs']} rows",
        f"{found['agreement']['worst_gradient']:.0e}",
    )


RATES = (
    "model",
    "pairs, mean tokens",
    "pairs/s",
    "tokens/s",
    "model FLOP utilisation",
    "with recomputation",
    "peak GiB",
    "share of the step",
)
PEERS = (
    "model",
    "dtype",
    "pairs, mean tokens",
    "pairs/s, ours",
    "theirs",
    "ratio (rounds)",
    "without the optimizer",
    "peak GiB, ours / theirs",
    "chunks, ours / theirs",
    "worst gradient",
)


def main() -> None:
    folder = Path(sys.argv[1])
    rates, peers = lines_of(folder / "rates.jsonl"), lines_of(folder / "peers.jsonl")
    for title, header, row_of, found in (
        ("Rates", RATES, rate_row, rates),
        ("Beside sentence-transformers", PEERS, peer_row, peers),
    ):
        where = ", ".join(sorted({one["where"] for one in found if "where" in one})) or "nothing measured"
        print(f"\n{title} ({where})\n\n{table(header, [row_of(one) for one in found])}")


if __name__ == "__main__":
    main()
