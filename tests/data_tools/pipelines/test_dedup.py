import json
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_parts import read_lines, read_pairs, real_pairs, run_here, write_parts

from data_tools.pipelines.clusters import first_of_cluster, first_of_cluster_plain, similar_to_first
from data_tools.pipelines.dedup import DedupSettings, MinHash, dedup_plan
from data_tools.pipelines.words import run_hashes, words
from largede.errors import DataError
from largede.streams.pair import Pair

WORDS = [f"{a}{b}" for a in "bcdfghklmnprstvz" for b in ("abo", "eli", "ino", "ode", "uru", "ast")]


def made_pairs(count: int, seed: int, passage_words: int = 60) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {"query": " ".join(rng.choices(WORDS, k=8)), "positive": " ".join(rng.choices(WORDS, k=passage_words))}
        for _ in range(count)
    ]


def edited(text: str, edits: int, rng: random.Random) -> str:
    found = text.split()
    for place in rng.sample(range(len(found)), edits):
        found[place] = "edited"
    return " ".join(found)


def deduplicated(tmp_path: Path, parts: list[list[dict[str, Any]]], chosen: DedupSettings) -> dict[str, Any]:
    inputs = write_parts(tmp_path / "pairs", parts)
    report = run_here(dedup_plan(chosen), inputs, tmp_path / "out").report
    assert report is not None
    return report


def test_exact_and_planted_near_duplicates_go_and_unrelated_pairs_stay(tmp_path: Path) -> None:
    rng = random.Random(5)
    pairs = made_pairs(150, seed=1)
    exact = [{**pair, "positive": pair["positive"].upper() + " !", "extra": 1} for pair in pairs[:20]]
    near = [{**pair, "positive": edited(pair["positive"], 1, rng)} for pair in pairs[20:60]]
    report = deduplicated(tmp_path, [pairs[:75], pairs[75:] + exact, near], DedupSettings())
    assert report["removed"]["exact duplicate"] == 20
    assert report["removed"]["near duplicate"] >= 36
    assert read_pairs(tmp_path / "out")[:150] == pairs
    example = report["examples"]["near duplicate"]
    assert "edited" in example["removed"]["passage"] and "edited" not in example["kept"]["passage"]
    assert report["read"] == report["kept"] + sum(report["removed"].values())


def test_two_questions_about_one_passage_are_two_pairs(tmp_path: Path) -> None:
    passage = made_pairs(1, seed=2)[0]["positive"]
    pairs = [{**pair, "positive": passage} for pair in made_pairs(30, seed=3)]
    assert deduplicated(tmp_path, [pairs], DedupSettings())["removed"] == {}


def test_one_question_with_two_answers_is_two_pairs(tmp_path: Path) -> None:
    pairs = [{**pair, "query": "how tall is it"} for pair in made_pairs(30, seed=4)]
    assert deduplicated(tmp_path, [pairs], DedupSettings())["removed"] == {}


def test_without_bands_only_exact_duplicates_go(tmp_path: Path) -> None:
    pairs = made_pairs(10, seed=6)
    near = [{**pair, "positive": edited(pair["positive"], 1, random.Random(1))} for pair in pairs]
    report = deduplicated(tmp_path, [pairs + near + pairs[:3]], DedupSettings(bands=0))
    assert report["removed"] == {"exact duplicate": 3}


def test_what_stays_does_not_depend_on_how_the_pairs_are_cut_into_parts(tmp_path: Path) -> None:
    rng = random.Random(8)
    pairs = made_pairs(60, seed=7)
    pairs += [{**rng.choice(pairs), "positive": edited(rng.choice(pairs)["positive"], 0, rng)} for _ in range(20)]
    pairs += [{**pair, "positive": edited(pair["positive"], 2, rng)} for pair in pairs[:40]] + pairs[5:15]
    deduplicated(tmp_path / "whole", [pairs], DedupSettings())
    deduplicated(tmp_path / "cut", [pairs[:7], [], pairs[7:50], pairs[50:]], DedupSettings())
    assert read_lines(tmp_path / "whole" / "out") == read_lines(tmp_path / "cut" / "out")


def test_estimated_similarities_are_those_of_the_shingles() -> None:
    chosen, rng = DedupSettings(bands=60), random.Random(3)
    minhash, errors = MinHash(chosen), []
    for pair in made_pairs(40, seed=9, passage_words=80):
        other = edited(pair["positive"], rng.randrange(1, 8), rng)
        sketches = minhash.signatures([Pair(pair["query"], pair["positive"]), Pair(pair["query"], other)])[1]
        agree = (sketches[0] == sketches[1])[:, chosen.query_hashes :].mean()
        errors.append(agree - jaccard(pair["positive"], other, chosen.passage_ngram))
    assert abs(np.mean(errors)) < 0.02
    assert np.max(np.abs(errors)) < 0.2


def jaccard(left: str, right: str, length: int) -> float:
    sets = [set(run_hashes(words(text), length).tolist()) for text in (left, right)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_real_near_duplicates_are_those_that_every_comparison_finds(tmp_path: Path) -> None:
    """All comparisons of pairs on real data: what is clearly similar goes, what goes is at least roughly similar."""
    chosen = DedupSettings()
    pairs = real_pairs("squad_dev", 3500)
    report = deduplicated(tmp_path, [pairs], chosen)
    texts = [
        (set(run_hashes(words(p["query"]), 2).tolist()), set(run_hashes(words(p["positive"]), 5).tolist()))
        for p in pairs
    ]
    by_shingle: dict[int, list[int]] = {}
    for row, (_, passage) in enumerate(texts):
        for shingle in passage:
            by_shingle.setdefault(shingle, []).append(row)
    compared = {pair for rows in by_shingle.values() for pair in combinations(rows, 2)}
    similar = {
        (a, b): min(_jaccard(texts[a][0], texts[b][0]) / 0.6, _jaccard(texts[a][1], texts[b][1]) / 0.7)
        for a, b in compared
    }
    kept = [json.dumps(pair) for pair in read_pairs(tmp_path / "out")]
    gone = {row for row, pair in enumerate(pairs) if json.dumps(pair) not in set(kept)}
    clear = {b for (_, b), degree in similar.items() if degree > 1.15}
    rough = {b for (_, b), degree in similar.items() if degree > 0.75}
    assert len(clear) > 10
    assert len(clear & gone) >= 0.85 * len(clear)  # the estimate's standard error is 0.07
    assert gone <= rough
    assert report["kept"] == len(kept)


def _jaccard(left: set[int], right: set[int]) -> float:
    return len(left & right) / max(1, len(left | right))


@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=40))
@settings(deadline=None)
def test_clusters_are_those_of_a_plain_union(matches: list[tuple[int, int]]) -> None:
    places, first = first_of_cluster(np.array(matches, np.uint64))
    assert (places.tolist(), first.tolist()) == first_of_cluster_plain(np.array(matches, np.uint64))


def test_a_chain_of_matches_takes_nothing_away_that_resembles_none_that_stay() -> None:
    """0 - 1 - 2 - 3 - 4 hang together, but only neighbours are similar."""
    places = np.arange(10, 15, dtype=np.uint64)
    removed, kept = similar_to_first(places, np.full(5, 10, np.uint64), lambda left, right: abs(left - right) <= 1)
    assert (removed.tolist(), kept.tolist()) == ([11, 13], [10, 12])


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="--query-similarity 1.5"):
        DedupSettings(query_similarity=1.5)
    with pytest.raises(DataError, match="--passage-hashes 0"):
        DedupSettings(passage_hashes=0)
