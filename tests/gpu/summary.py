"""The figures of one run of run.sh as three tables: `python tests/gpu/summary.py FOLDER`."""

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


def latency_row(one: dict[str, Any], cell: dict[str, Any]) -> tuple[str, ...]:
    return (
        one["model"] + (", compiled" if one["settings"]["compile"] else ""),
        one["settings"]["compute_dtype"],
        f"{cell['batch']}",
        f"{cell['p50_ms']:,.2f}",
        number(cell["p99_ms"], ",.2f"),
        f"{cell['queries_per_s']:,.0f}",
        number(cell["paper_ms"], "g"),
    )


def encode_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            found["model"],
            way,
            f"{figures['texts_per_s']:,.1f}",
            f"{figures['tokens_per_s']:,.0f}",
            number(figures["model_flop_utilisation"], ".1%"),
            f"{figures['ratio_to_best_of_theirs']:.2f}",
            number(figures["least_cosine"], ".5f"),
        )
        for way, figures in found["ways"].items()
    ]


def search_row(found: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{found['documents']:,} x {found['dimension']}",
        found["kind"],
        f"{found['queries']:,}, top {found['top']:,}",
        f"{found['search_s']:.1f}",
        f"{found['queries_per_s']:,.0f}",
        f"{found['tflop_per_s']:.1f}",
        f"{found['lists_checked']} of them: {'yes' if found['equal_to_cpu'] else 'NO'}",
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
LATENCY = ("model", "dtype", "queries of 128 tokens", "p50 ms", "p99 ms", "queries/s", "the paper's ms, its hardware")
ENCODING = (
    "model",
    "theirs by rows, ours by tokens of a chunk",
    "texts/s",
    "tokens/s",
    "model FLOP utilisation",
    "ratio to their best",
    "least cosine",
)

SEARCH = ("vectors", "storage", "queries", "search s", "queries/s", "TFLOP/s", "lists equal to the CPU's")


def main() -> None:
    folder = Path(sys.argv[1])
    rates, peers = lines_of(folder / "rates.jsonl"), lines_of(folder / "peers.jsonl")
    for title, header, row_of, found in (
        ("Rates", RATES, rate_row, rates),
        ("Beside sentence-transformers", PEERS, peer_row, peers),
        ("Exact search", SEARCH, search_row, lines_of(folder / "search.jsonl")),
    ):
        where = ", ".join(sorted({one["where"] for one in found if "where" in one})) or "nothing measured"
        print(f"\n{title} ({where})\n\n{table(header, [row_of(one) for one in found])}")
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("latency-*.json"))]
    where = (
        ", ".join(sorted({one["about"].get("gpu", one["about"]["hardware"]) for one in found})) or "nothing measured"
    )
    # What the paper's length takes; all lengths are in the files.
    rows = [latency_row(one, cell) for one in found for cell in one["cells"] if cell["tokens"] == 128]
    print(f"\nLatency ({where})\n\n{table(LATENCY, rows)}")
    encoding = lines_of(folder / "encode.jsonl")
    where = ", ".join(sorted({one["where"] for one in encoding})) or "nothing measured"
    rows = [row for one in encoding for row in encode_rows(one)]
    print(f"\nEncoding beside sentence-transformers ({where})\n\n{table(ENCODING, rows)}")


if __name__ == "__main__":
    main()
