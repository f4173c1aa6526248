import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beir_folder import shared_data
from pair_parts import read_pairs, real_pairs, run_here, write_parts

from data_tools.pipelines.decontaminate import DecontaminateSettings, decontaminate_plan
from data_tools.pipelines.overlap import BenchmarkText, OverlapIndex, RunLengths, write_index
from data_tools.pipelines.words import Hashes, run_hashes
from largede.errors import DataError

LONG_QUERY = "what did the old lighthouse keeper write into his diary on the evening before the great storm"
LONG_PASSAGE = " ".join(f"sentence{number} about the storm" for number in range(20))
EIGHT_WORDS = "how deep is the sea off the cape"
FOUR_WORDS = "breast cancer and diet"
FIVE_WORD_PASSAGE = "No studies were found yet."
FREE = " ".join(f"harmless{number}" for number in range(40))


def write_collection(folder: Path, queries: dict[str, str], passages: dict[str, str], relevant: list[str]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": id_, "title": "", "text": text} for id_, text in passages.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    asked = [{"_id": id_, "text": text} for id_, text in queries.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    judged = [f"{query}\t{passage}\t1\n" for query in queries for passage in relevant]
    (folder / "qrels" / "test.tsv").write_text("".join(judged))
    return folder


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    passages = {"p1": LONG_PASSAGE, "p2": "a short answer", "p3": FIVE_WORD_PASSAGE, "other": "unjudged " * 30}
    queries = {"q1": LONG_QUERY, "q2": "who was Ann", "q3": EIGHT_WORDS, "q4": FOUR_WORDS}
    return write_collection(tmp_path / "sea", queries, passages, ["p1", "p2", "p3"])


def decontaminated(tmp_path: Path, collection: Path, pairs: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    inputs = write_parts(tmp_path / "pairs", [pairs])
    plan = decontaminate_plan([collection], DecontaminateSettings(**options))
    report = run_here(plan, inputs, tmp_path / "out").report
    assert report is not None
    return report


@pytest.mark.parametrize(
    ("pair", "reason", "test_id"),
    [
        ({"query": LONG_QUERY.upper() + "?", "positive": FREE}, "test query in training query", "q1"),
        ({"query": "Who was Ann?", "positive": FREE}, "test query in training query", "q2"),
        ({"query": "why", "positive": f"{FREE} {LONG_QUERY} {FREE}"}, "test query in training passage", "q1"),
        ({"query": f"Hello! {EIGHT_WORDS}?", "positive": FREE}, "test query in training query", "q3"),
        ({"query": FOUR_WORDS, "positive": FREE}, "test query in training query", "q4"),
        ({"query": f"{FOUR_WORDS}, please?", "positive": FREE}, "short test query inside training query", "q4"),
        ({"query": "why", "positive": f"{FREE} {EIGHT_WORDS} {FREE}"}, "test query in training passage", "q3"),
        ({"query": "why", "positive": FREE + LONG_PASSAGE[60:200]}, "test passage in training passage", "p1"),
        ({"query": "why", "positive": "A short answer."}, "test passage in training passage", "p2"),
        ({"query": LONG_PASSAGE, "positive": FREE}, "test passage in training query", "p1"),
        (
            {"query": "why", "positive": FREE, "negatives": [FREE, LONG_PASSAGE]},
            "test passage in training negative",
            "p1",
        ),
    ],
)
def test_each_overlap_is_removed_and_says_what_it_shares_with_which_text(
    tmp_path: Path, collection: Path, pair: dict[str, Any], reason: str, test_id: str
) -> None:
    free = {"query": "is it free of tests", "positive": FREE}
    report = decontaminated(tmp_path, collection, [free, pair])
    assert report["removed"] == {f"sea: {reason}": 1}
    example = report["examples"][f"sea: {reason}"]
    assert example["test"]["id"] == test_id
    assert example["shared words"]
    assert read_pairs(tmp_path / "out") == [free]


def test_the_length_from_which_short_test_queries_count_inside_queries_is_a_setting(
    tmp_path: Path, collection: Path
) -> None:
    pairs = [{"query": f"{FOUR_WORDS}, please?", "positive": FREE}]
    assert decontaminated(tmp_path, collection, pairs, shortest_query=5)["removed"] == {}


@pytest.mark.parametrize(
    "pair",
    [
        {"query": "who was Ann Lee", "positive": FREE},
        {"query": "why", "positive": f"{FREE} who was Ann {FREE}"},
        {"query": " ".join(LONG_QUERY.split()[:12]), "positive": FREE},
        {"query": " ".join(EIGHT_WORDS.split()[:7]), "positive": FREE},
        {"query": "why", "positive": f"{FREE} {FOUR_WORDS} {FREE}"},
        {"query": "breast cancer and a diet", "positive": FREE},
        {"query": f"why? {FIVE_WORD_PASSAGE} Really?", "positive": FREE},
        {"query": "why", "positive": "unjudged " * 30},
    ],
)
def test_fewer_shared_words_short_test_texts_inside_and_unjudged_passages_stay(
    tmp_path: Path, collection: Path, pair: dict[str, Any]
) -> None:
    assert decontaminated(tmp_path, collection, [pair])["removed"] == {}


def test_with_queries_only_passages_may_be_trained_on(tmp_path: Path, collection: Path) -> None:
    pairs = [{"query": LONG_QUERY, "positive": FREE}, {"query": "why", "positive": LONG_PASSAGE}]
    report = decontaminated(tmp_path, collection, pairs, queries_only=True)
    assert report["removed"] == {"sea: test query in training query": 1}


def test_fewer_words_in_a_row_remove_more(tmp_path: Path, collection: Path) -> None:
    pairs = [{"query": " ".join(LONG_QUERY.split()[:9]), "positive": FREE}, {"query": "why", "positive": FREE}]
    assert decontaminated(tmp_path, collection, pairs, ngram=8)["removed"] == {"sea: test query in training query": 1}


def test_the_length_from_which_short_test_texts_count_inside_others_is_a_setting(
    tmp_path: Path, collection: Path
) -> None:
    pairs = [{"query": f"Hello! {EIGHT_WORDS}?", "positive": FREE}]
    pairs += [{"query": "why", "positive": f"{FREE} {EIGHT_WORDS} {FREE}"}]
    assert decontaminated(tmp_path, collection, pairs, shortest_run=9)["removed"] == {
        "sea: short test query inside training query": 1
    }


def test_each_collection_that_a_pair_overlaps_is_counted(tmp_path: Path, collection: Path) -> None:
    other = write_collection(tmp_path / "coast", {"c1": LONG_QUERY}, {"p": "another passage"}, ["p"])
    inputs = write_parts(tmp_path / "pairs", [[{"query": query, "positive": FREE} for query in (LONG_QUERY, "why")]])
    plan = decontaminate_plan([collection, other], DecontaminateSettings())
    report = run_here(plan, inputs, tmp_path / "out").report
    assert report is not None
    assert report["removed"] == {"sea: test query in training query": 1}
    assert report["notes"] == {"pairs that overlap sea": 1, "pairs that overlap coast": 1}


def test_look_ups_by_table_and_search_find_what_a_plain_set_holds(tmp_path: Path) -> None:
    texts = [
        BenchmarkText("c", "passage", str(n), " ".join(f"w{(n * 7 + k) % 97}" for k in range(30))) for n in range(50)
    ]
    write_index(texts, RunLengths(4, 4, 4), tmp_path)
    index = OverlapIndex(tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(50):
        runs = run_hashes([f"w{number}" for number in rng.integers(0, 110, 60).cumsum() % 110], 4)
        runs = np.concatenate([runs, run_hashes(texts[int(rng.integers(50))].text.split(), 4)])
        assert index._held(runs) == held_plain(index, runs)


def held_plain(index: OverlapIndex, hashes: Hashes) -> list[int]:
    """What `_held` finds, without table and search."""
    held = set(index._hashes.tolist())
    return [number for number, value in enumerate(hashes.tolist()) if value in held]


def test_a_hash_that_agrees_by_chance_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_index([BenchmarkText("c", "query", "q", "one two three four")], RunLengths(4, 4, 4), tmp_path)
    index = OverlapIndex(tmp_path)
    assert index.overlaps(["one", "two", "three", "four"], False)
    forged = run_hashes(["one", "two", "three", "four"], 4)
    monkeypatch.setattr("data_tools.pipelines.overlap.runs_of_lengths", lambda found, lengths: (forged, [4]))
    assert index.overlaps(["five", "six", "seven", "eight"], False) == {}


def test_folders_that_are_no_collections_and_equal_names_are_refused(tmp_path: Path, collection: Path) -> None:
    with pytest.raises(DataError, match="there is no .*corpus.jsonl"):
        decontaminate_plan([tmp_path], DecontaminateSettings())
    with pytest.raises(DataError, match="qrels/dev.tsv"):
        decontaminate_plan([collection], DecontaminateSettings(split="dev"))
    with pytest.raises(DataError, match="same name"):
        decontaminate_plan([collection, collection], DecontaminateSettings())


def test_real_test_pairs_go_and_real_unrelated_pairs_stay(tmp_path: Path) -> None:
    squad = shared_data("collections", "squad-dev")
    tests, others = real_pairs("squad_dev", 800), real_pairs("acl_title_abstract", 400)
    report = decontaminated(tmp_path, squad, tests + others)
    assert report["kept"] == len(others)
    assert report["notes"] == {"pairs that overlap squad-dev": len(tests)}
