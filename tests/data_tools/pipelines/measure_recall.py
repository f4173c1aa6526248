"""What dedup finds of what there is to find: `PYTHONPATH=.:tests python tests/data_tools/pipelines/measure_recall.py`.

Compares all pairs of real pairs whose queries share two words in a row, and what joined texts would have removed.
"""

import json
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

from pair_parts import read_pairs, real_pairs, run_here, write_parts

from data_tools.pipelines.dedup import DedupSettings, dedup_plan, shingles
from data_tools.pipelines.words import run_hashes, words
from largede.text import passage_text

# A run of words that most queries begin with compares everything with everything.
MOST_QUERIES_OF_A_RUN = 400


def removed_rows(pairs: list[dict[str, Any]], settings: DedupSettings) -> set[int]:
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_parts(Path(folder) / "pairs", [pairs])
        run_here(dedup_plan(settings), inputs, Path(folder) / "out")
        kept = {json.dumps(pair) for pair in read_pairs(Path(folder) / "out")}
    return {row for row, pair in enumerate(pairs) if json.dumps(pair) not in kept}


def similarities(pairs: list[dict[str, Any]], settings: DedupSettings) -> list[tuple[int, float, float]]:
    """(later row, Jaccard similarity of the queries, of the passages) of each comparison."""
    texts = [
        [
            frozenset(side.tolist())
            for side in shingles(p["query"], passage_text(p.get("title", ""), p["positive"]), settings)
        ]
        for p in pairs
    ]
    holders: dict[int, list[int]] = {}
    for row, pair in enumerate(pairs):
        for shingle in set(run_hashes(words(pair["query"]), 2).tolist()):
            holders.setdefault(shingle, []).append(row)
    compared = {two for rows in holders.values() if len(rows) <= MOST_QUERIES_OF_A_RUN for two in combinations(rows, 2)}
    return [
        (b, *(len(x & y) / len(x | y) for x, y in zip(texts[a], texts[b], strict=True))) for a, b in sorted(compared)
    ]


def main() -> None:
    # With whole short queries next to nothing is left to find: what is measured is how near duplicates are found.
    settings = DedupSettings(query_similarity=0.6, whole_query_words=1, whole_passage_words=1)
    for name in ("squad_dev", "bioasq_train"):
        pairs = real_pairs(name, 10**6)
        gone, compared = removed_rows(pairs, settings), similarities(pairs, settings)
        print(f"{name}: {len(pairs):,} pairs, {len(gone)} removed")
        for factor in (0.8, 0.9, 1.0, 1.1, 1.2):
            limits = settings.query_similarity * factor, settings.passage_similarity * factor
            there = {row for row, query, passage in compared if query >= limits[0] and passage >= limits[1]}
            print(f"  at least {limits[0]:.2f} and {limits[1]:.2f}: {len(there)}, of which removed {len(there & gone)}")
        # Rows can be told apart by an unknown key when all queries are equal.
        joined = [
            {"query": "x", "positive": f"{p['query']} {p['positive']}", "row": row} for row, p in enumerate(pairs)
        ]
        print(f"  with both texts joined: {len(removed_rows(joined, settings))} removed")


if __name__ == "__main__":
    main()
