import random
from collections import Counter
from pathlib import Path

import pytest
from beir_folder import shared_data, write_jsonl, write_qrels
from labelled_files import grouped_pairs, written

from data_tools.dropped import Dropped
from data_tools.readers import beir
from data_tools.readers.beir import BeirOptions
from largede.errors import DataError
from largede.retrieval.corpus import open_benchmark
from largede.streams.pair import Pair

CORPUS = [
    {"_id": "d1", "title": "T1", "text": "one"},
    {"_id": "d2", "title": "", "text": "two"},
    {"_id": "d3", "title": "a title alone", "text": ""},
]
COPY = "positive listed twice, or under two ids"
QUERIES = [{"_id": "q1", "text": "first?"}, {"_id": "q2", "text": "second?"}]


def folder_written(folder: Path, corpus: list[dict[str, object]], queries: list[dict[str, object]]) -> Path:
    write_jsonl(folder / "corpus.jsonl", corpus)
    write_jsonl(folder / "queries.jsonl", queries)
    return folder


def read(folders: list[Path], options: BeirOptions, tmp_path: Path) -> tuple[list[Pair], Dropped]:
    return grouped_pairs(beir, beir.files_of(folders, options), options, tmp_path)


def test_queries_meet_their_passages_the_best_first(tmp_path: Path) -> None:
    folder = folder_written(tmp_path / "made", CORPUS, QUERIES)
    write_qrels(folder, "train", [("q1", "d2", 1), ("q1", "d1", 2), ("q1", "d3", 0), ("q2", "d3", 1)])
    pairs, dropped = read([folder], BeirOptions(), tmp_path)
    assert sorted(pairs, key=lambda pair: pair.query_id) == [
        Pair("first?", "one", "T1", query_id="q1", positive_id="d1", other_positives=("d2",), source="made"),
        Pair("first?", "two", "", query_id="q1", positive_id="d2", other_positives=("d1",), source="made"),
        Pair("second?", "a title alone", "", query_id="q2", positive_id="d3", source="made"),
    ]
    assert dropped == {"judgement below --min-grade": 1}
    (best,), dropped = read([folder], BeirOptions(source="s", min_grade=2), tmp_path)
    assert (best.positive_id, best.source) == ("d1", "s")
    assert dropped == {"judgement below --min-grade": 3}


def test_ids_of_two_folders_do_not_mix(tmp_path: Path) -> None:
    folders = []
    for name in ("one", "two"):
        corpus = [{"_id": "1", "title": "", "text": f"passage of {name}"}]
        folders.append(folder_written(tmp_path / name, corpus, [{"_id": "1", "text": f"query of {name}"}]))
        write_qrels(folders[-1], "train", [("1", "1", 1)])
    pairs, dropped = read(folders, BeirOptions(), tmp_path)
    assert sorted((pair.query, pair.positive, pair.source) for pair in pairs) == [
        ("query of one", "passage of one", "one"),
        ("query of two", "passage of two", "two"),
    ]
    assert not dropped


def test_bad_records_and_dangling_ids_are_counted_with_an_example(tmp_path: Path) -> None:
    corpus = [*CORPUS, {"_id": "d1", "text": "again"}, {"text": "no id"}, {"_id": "d4", "text": 5}, {"_id": "d5"}]
    queries = [*QUERIES, {"_id": "q1", "text": "again?"}, {"_id": "q3", "text": " "}]
    folder = folder_written(tmp_path / "made", corpus, queries)
    lines = ["q1\td1\t1", "q1\tgone\t1", "gone\td1\t1", "q3\td2\t1", "q1\td2\thigh", "q1", "\td1\t1", "q1\td1\t1"]
    written(folder / "qrels" / "train.tsv", "query-id\tcorpus-id\tscore\n" + "\n".join(lines))
    pairs, dropped = read([folder], BeirOptions(), tmp_path)
    assert [(pair.query, pair.positive) for pair in pairs] == [("first?", "one")]
    assert dropped == {
        "passage whose id came before": 1,
        "passage without an id": 1,
        "passage that is no text": 1,
        "no passage, or an empty one": 1,
        "query whose id came before": 1,
        "no query, or an empty one": 1,
        "judgement of a passage that no file holds": 1,
        "judgement of a query that no file holds": 2,
        "judgement whose grade is no whole number": 1,
        "line of other than 2 or 3 or 4 columns": 1,
        "judgement without a query id or a passage id": 1,
        COPY: 1,
    }
    assert dropped.examples["judgement of a passage that no file holds"] == "made query q1 passage gone"


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = folder_written(tmp_path / "made", CORPUS, QUERIES)
    write_qrels(folder, "test", [("q1", "d1", 1)])
    with pytest.raises(DataError) as raised:
        beir.files_of([folder], BeirOptions())
    assert raised.value.given == f"{folder} has no qrels/train.tsv"
    assert "(splits here: test)" in raised.value.expected
    with pytest.raises(DataError, match="is no folder"):
        beir.files_of([folder / "corpus.jsonl"], BeirOptions())


def test_files_in_any_order_and_lines_in_any_order_give_the_same_pairs(tmp_path: Path) -> None:
    corpus = [{"_id": str(i), "text": f"passage {i}"} for i in range(200)]
    queries = [{"_id": str(i), "text": f"query {i}"} for i in range(60)]
    judgements = [(str(q), str((q * 7 + j * 11) % 200), 1 + j % 2) for q in range(60) for j in range(3)]
    made = []
    for seed in range(3):
        folder = tmp_path / str(seed) / "made"
        for rows in (corpus, queries, judgements):
            random.Random(seed).shuffle(rows)  # type: ignore[arg-type]
        write_qrels(folder_written(folder, corpus, queries), "train", judgements)
        files = beir.files_of([folder], BeirOptions())
        pairs, dropped = grouped_pairs(beir, files if seed else files[::-1], BeirOptions(), tmp_path)
        assert not dropped
        # Positives of one grade come in the order of the judgements.
        made.append(sorted((pair.query_id, pair.positive, frozenset(pair.other_positives)) for pair in pairs))
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == 180


@pytest.mark.parametrize(("name", "split"), [("wikiqa", "train"), ("cosqa", "dev"), ("cranfield", "test_graded")])
def test_real_collections_give_what_their_judgements_say(name: str, split: str, tmp_path: Path) -> None:
    folder = shared_data("collections", name)
    pairs, dropped = read([folder], BeirOptions(split=split), tmp_path)
    benchmark = open_benchmark(folder, split)
    right = {(q, d) for q, grades in benchmark.qrels.items() for d, grade in grades.items() if grade > 0}
    found = Counter((pair.query_id, pair.positive_id) for pair in pairs)
    texts = benchmark.corpus.lookup({d for _, d in right})
    # Passages without any text, and copies of a query's other positive, make no pair.
    missing = sum(dropped[what] for what in ("judgement of a passage that no file holds", COPY))
    assert set(found) <= right
    assert max(found.values()) == 1
    assert len(found) == len(right) - missing
    for pair in pairs[:200]:
        document = texts[pair.positive_id]
        assert pair.query == benchmark.queries[pair.query_id].strip()
        assert (pair.title + pair.positive) == (document.title.strip() + document.text.strip())
        assert set(pair.other_positives) == {d for q, d in found if q == pair.query_id} - {pair.positive_id}
