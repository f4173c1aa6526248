import json
import random
import unicodedata
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_parts import read_lines, read_pairs, real_pairs, run_here, write_parts

from data_tools.pipelines import clusters
from data_tools.pipelines.clusters import (
    Limits,
    Places,
    first_of_cluster,
    in_rounds,
    one_by_one,
    similar_to_first,
)
from data_tools.pipelines.dedup import DedupSettings, FindMatches, MinHash, dedup_plan, shingles
from data_tools.pipelines.words import plain, run_hashes, words
from largede.errors import DataError
from largede.streams.pair import Pair
from largede.text import passage_text

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
    exact = [{**pair, "positive": pair["positive"].upper() + "\u3000", "extra": 1} for pair in pairs[:20]]
    near = [{**pair, "positive": edited(pair["positive"], 1, rng)} for pair in pairs[20:60]]
    report = deduplicated(tmp_path, [pairs[:75], pairs[75:] + exact, near], DedupSettings())
    assert report["removed"]["exact duplicate"] == 20
    assert report["removed"]["near duplicate"] >= 36
    assert read_pairs(tmp_path / "out")[:150] == pairs
    example = report["examples"]["near duplicate"]
    assert "edited" in example["removed"]["passage"] and "edited" not in example["kept"]["passage"]
    assert report["read"] == report["kept"] + sum(report["removed"].values())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("how to sum in C++", "use a+b"), ("how to sum in C#", "use a-b")),
        (("what if x < 5", "return -1"), ("what if x > 5", "return 1")),
        (("what is this", "\N{BEER MUG}"), ("what is this", "\N{HOT BEVERAGE}")),
        (("?", "\N{BEER MUG}"), ("!", "\N{BEER MUG}")),
        (("is it a letter", "b c"), ("is it a letter", "b, c")),
    ],
)
def test_signs_tell_short_texts_apart(tmp_path: Path, first: tuple[str, str], second: tuple[str, str]) -> None:
    pairs = [{"query": query, "positive": positive} for query, positive in (first, second)]
    assert deduplicated(tmp_path, [pairs], DedupSettings())["removed"] == {}


def test_exact_duplicates_differ_in_case_white_space_and_compatibility_forms_alone(tmp_path: Path) -> None:
    pairs = [
        {"query": "Is x < 5\tin ＣＰＵ time?", "positive": "Yes \N{BEER MUG}"},
        {"query": "is x < 5 in CPU TIME? ", "positive": "yes\n\N{BEER MUG}"},
        {"query": "is x < 5 in CPU TIME", "positive": "yes \N{BEER MUG}"},
    ]
    assert deduplicated(tmp_path / "a", [pairs[:2]], DedupSettings())["removed"] == {"exact duplicate": 1}
    wide = [{**pairs[0], "query": "is x < 5 in CPU time\N{FULLWIDTH QUESTION MARK}"}, pairs[1]]
    assert deduplicated(tmp_path / "wide", [wide], DedupSettings())["removed"] == {"exact duplicate": 1}
    # Signs at the end are what a near duplicate may differ in.
    assert deduplicated(tmp_path / "b", [pairs[1:]], DedupSettings())["removed"] == {"near duplicate": 1}
    assert deduplicated(tmp_path / "c", [pairs[1:]], DedupSettings(bands=0))["removed"] == {}


# Wide and narrow signs, ligatures, letters whose case has more letters, marks, white space of several kinds.
ODD = "aZ1.?!,;:… \t\n\u00a0\u3000？！：．，；。ﬁßİıſΣς½Ⅷｱｶﾞ\u0301é上はé"


@given(st.text(ODD, max_size=80), st.sampled_from(["upper", "lower", "NFKC", "NFD", "spaces"]))
def test_exact_duplicates_are_compared_by_the_same_shingles(text: str, change: str) -> None:
    if change == "spaces":
        other = "\n".join(text.split())
    else:
        other = unicodedata.normalize(change, text) if change.startswith("N") else getattr(text, change)()
    if plain(text) == plain(other):
        assert words(text) == words(other)
        for short in (1, 5):
            settings = DedupSettings(whole_query_words=short, whole_passage_words=short)
            for one, two in zip(shingles(text, text, settings), shingles(other, other, settings), strict=True):
                assert np.array_equal(one, two)


def test_template_questions_about_other_things_are_other_pairs(tmp_path: Path) -> None:
    asked = "What research (or clinical trials) is being done for {} ?"
    told = "Researchers look for new ways to treat the disease. Ask your doctor whether trials of {} take patients. "
    told += " ".join(WORDS)
    pairs = [
        {"query": asked.format(name), "positive": told.format(name)}
        for name in ("Childhood Hodgkin Lymphoma", "Gastrointestinal Stromal Tumors", "Hodgkin Lymphoma")
    ]
    assert deduplicated(tmp_path, [pairs], DedupSettings())["removed"] == {}
    again = {**pairs[0], "positive": pairs[0]["positive"].replace("new ways", "ways")}
    assert deduplicated(tmp_path / "again", [[*pairs, again]], DedupSettings())["removed"] == {"near duplicate": 1}


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
    chosen = DedupSettings(query_similarity=0.6, whole_query_words=1)
    pairs = real_pairs("squad_dev", 3500)
    report = deduplicated(tmp_path, [pairs], chosen)
    both = [shingles(pair["query"], passage_text(pair["title"], pair["positive"]), chosen) for pair in pairs]
    texts = [(set(query.tolist()), set(passage.tolist())) for query, passage in both]
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


def test_real_questions_from_templates_stay(tmp_path: Path) -> None:
    """Health questions of a few forms: what goes is the same question with nearly the same answer."""
    report = deduplicated(tmp_path, [real_pairs("medquad", 8000)], DedupSettings())
    assert 0 < report["removed"].get("near duplicate", 0) < 40
    for example in report["examples"].values():
        assert words(example["removed"]["query"]) == words(example["kept"]["query"])


@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=40))
@settings(deadline=None)
def test_clusters_are_those_of_a_plain_union(matches: list[tuple[int, int]]) -> None:
    places, first = first_of_cluster(np.array(matches, np.uint64))
    assert (places.tolist(), first.tolist()) == first_of_cluster_plain(np.array(matches, np.uint64))


def first_of_cluster_plain(matches: Places) -> tuple[list[int], list[int]]:
    """What `first_of_cluster` finds, with a union of one match after the other."""
    parent: dict[int, int] = {}

    def root(place: int) -> int:
        while parent.setdefault(place, place) != place:
            place = parent[place]
        return place

    for left, right in matches.tolist():
        smaller, larger = sorted((root(left), root(right)))
        parent[larger] = smaller
    places = sorted(parent)
    return places, [root(place) for place in places]


LIMITS = Limits(1, 0.5, 0.5)


def chain(rows: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Sketches of four bands; row n shares two of them with row n + 1 and no other."""
    numbers = np.arange(rows)[:, None] // 2 * 2 + np.array([0, 0, 1, 1]) * (1 - 2 * (np.arange(rows)[:, None] % 2 == 0))
    return np.stack([numbers % 251, numbers // 251], axis=2).astype(np.uint8)


def test_a_chain_of_matches_takes_nothing_away_that_resembles_none_that_stay() -> None:
    """0 - 1 - 2 - 3 - 4 hang together, but only neighbours are similar."""
    places = np.arange(10, 15, dtype=np.uint64)
    removed, kept = similar_to_first(places, np.full(5, 10, np.uint64), chain(5), LIMITS)
    assert (removed.tolist(), kept.tolist()) == ([11, 13], [10, 12])


def test_a_long_chain_is_worked_through_without_comparing_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, plain = [], clusters.similar

    def counting(left: Any, right: Any, limits: Limits) -> Any:
        compared.append(len(left))
        return plain(left, right, limits)

    monkeypatch.setattr(clusters, "similar", counting)
    places = np.arange(5000, dtype=np.uint64)
    removed, kept = similar_to_first(places, np.zeros(5000, np.uint64), chain(5000), LIMITS)
    assert removed.tolist() == list(range(1, 5000, 2)) and kept.tolist() == list(range(0, 5000, 2))
    assert sum(compared) <= 4 * len(places)


@given(st.integers(0, 2**32), st.integers(2, 50), st.integers(1, 4), st.integers(0, 3))
@settings(deadline=None)
def test_one_by_one_takes_away_what_rounds_take_away(seed: int, rows: int, values: int, bands: int) -> None:
    rng = np.random.default_rng(seed)
    sketches = rng.integers(0, values, (rows, bands, 2), np.uint8)
    cluster = rng.integers(0, 3, rows)
    all_rows = np.arange(rows)
    in_order = sorted(zip(*in_rounds(all_rows, cluster, sketches, LIMITS), strict=True))
    assert in_order == list(zip(*one_by_one(all_rows, cluster, sketches, LIMITS), strict=True))


def test_matches_are_the_same_however_few_records_are_in_memory(tmp_path: Path) -> None:
    record, rng = np.dtype([("number", "<u8"), ("row", "<u4")]), np.random.default_rng(0)
    numbers = rng.integers(0, 2**64, 60, np.uint64)
    expected, first = [], {}
    for part in range(4):
        rows = np.empty(50 if part != 1 else 0, record)
        rows["number"], rows["row"] = rng.choice(numbers, len(rows)), np.arange(len(rows))
        for number, row in rows.tolist():
            place = part << 32 | row
            if first.setdefault(number, place) != place:
                expected.append((first[number], place))
        rows.sort(order=("number", "row"))
        path = tmp_path / "signatures" / "bucket_000" / f"{part:05d}.minhash.sig"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rows.tobytes())
    for at_once in (7, 10**6):
        FindMatches(tmp_path / "signatures", tmp_path / str(at_once), at_once).run()
        found = np.load(tmp_path / str(at_once) / "00000.npy")
        assert sorted(map(tuple, found.tolist())) == sorted(expected)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="--query-similarity 1.5"):
        DedupSettings(query_similarity=1.5)
    with pytest.raises(DataError, match="--passage-hashes 0"):
        DedupSettings(passage_hashes=0)
