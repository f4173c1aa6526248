"""How many mined negatives are positives that the miner was not told of, for each way to choose them.

    python tests/retrieval/measure_false_negatives.py --data nfcorpus --model MINILM --out FOLDER

Half of the judgements of the training split are hidden by a seeded draw, and a folder without them is mined once for
each row; embeddings and lists that are there are used again.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.pairs import PairReader
from largede.files import read_json_object
from largede.retrieval.encoder import open_model
from largede.retrieval.mine.settings import MineSettings
from largede.retrieval.mine.sources import open_source
from largede.retrieval.mine.stages import MineJob, mine

ROWS: dict[str, dict[str, Any]] = {
    "dense 1-100": {},
    "dense 30-200": {"ranks": (30, 200)},
    "dense 1-100, margin 0.05": {"margin": 0.05},
    "dense 1-100, margin 0.1": {"margin": 0.1},
    "dense 1-100, max-share 0.95": {"max_share": 0.95},
    "BM25 1-100": {"lists": ("bm25",)},
    "both 1-100": {"lists": ("dense", "bm25")},
    "both 1-100, agreement": {"lists": ("dense", "bm25"), "agreement": True},
    "both 1-100, margin 0.05": {"lists": ("dense", "bm25"), "margin": 0.05},
    "both 30-200, margin 0.05": {"lists": ("dense", "bm25"), "margin": 0.05, "ranks": (30, 200)},
}


@dataclass(frozen=True)
class Hidden:
    """A collection without half of its training judgements, and the (query, passage) pairs that are hidden."""

    folder: Path
    pairs: frozenset[tuple[str, str]]
    all: int


def hide_half(data: Path, folder: Path, seed: int) -> Hidden:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        if not (folder / name).exists():
            (folder / name).symlink_to((data / name).resolve())
    head, *lines = (data / "qrels" / "train.tsv").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if int(line.split("\t")[2]) > 0]
    is_hidden = np.random.default_rng(seed).random(len(lines)) < 0.5
    kept = [line for line, hide in zip(lines, is_hidden, strict=True) if not hide]
    (folder / "qrels" / "train.tsv").write_text("\n".join([head, *kept]) + "\n", encoding="utf-8")
    hidden = [line.split("\t")[:2] for line, hide in zip(lines, is_hidden, strict=True) if hide]
    return Hidden(folder, frozenset((query, passage) for query, passage in hidden), len(lines))


def row_of(out: Path, hidden: Hidden, negatives: int) -> str:
    """Negatives, pairs with fewer than wanted, and the share of hidden positives among the negatives."""
    pairs = list(PairReader(sorted((out / "pairs").glob("part-*"))))
    mined = [(pair.query_id, passage) for pair in pairs for passage in pair.negative_ids]
    fewer = sum(len(pair.negatives) < negatives for pair in pairs)
    share = 100 * sum(one in hidden.pairs for one in mined) / len(mined)
    return f"{len(mined):,} | {fewer:,} | {share:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in BEIR format with qrels/train.tsv")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-positives", type=int, default=2, help="pairs of one query")
    parser.add_argument("--negatives", type=int, default=7)
    parser.add_argument("--compute-dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--max-passage-tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    hidden = hide_half(given.data, given.out / "data", given.seed)
    source = open_source([hidden.folder], "train", given.max_positives)
    model = open_model(given.model, device="cpu", dtype=given.compute_dtype)
    base = MineSettings(
        ranks=(1, 100), negatives=given.negatives, max_passage_tokens=given.max_passage_tokens, seed=given.seed
    )
    print(f"{len(hidden.pairs):,} of {hidden.all:,} judgements hidden")
    print(f"| lists, ranks, filter | negatives | pairs with fewer than {given.negatives} | hidden positives |")
    print("|---|---|---|---|")
    for name, changes in ROWS.items():
        mine(MineJob(source, model, given.out / "mined", replace(base, **changes)), say=lambda line: None)
        print(f"| {name} | {row_of(given.out / 'mined', hidden, given.negatives)} |", flush=True)
    summary = read_json_object(given.out / "mined" / "summary.json")
    print(f"{summary['pairs']:,} pairs of {summary['passages']:,} passages")


if __name__ == "__main__":
    main()
