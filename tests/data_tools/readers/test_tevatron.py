from pathlib import Path

from labelled_files import grouped_pairs, lines_written, pairs_in

from data_tools.readers import tevatron, tevatron_ids
from data_tools.readers.labelled import LabelledOptions
from largede.streams.pair import Pair

NEGATIVES = [{"docid": str(n), "title": f"T{n}", "text": f"wrong {n}"} for n in range(3)]
RECORD = {
    "query_id": 5,
    "query": "who?",
    "positive_passages": [{"docid": "p1", "title": "T", "text": "right"}, {"docid": "p2", "title": "", "text": "too"}],
    "negative_passages": NEGATIVES,
}


def test_a_record_makes_one_pair_for_each_positive_with_all_its_negatives(tmp_path: Path) -> None:
    path = lines_written(tmp_path / "nq-train.jsonl", [RECORD])
    wrong = {
        "negatives": ("wrong 0", "wrong 1", "wrong 2"),
        "negative_titles": ("T0", "T1", "T2"),
        "negative_ids": ("0", "1", "2"),
        "query_id": "5",
        "source": "nq-train",
    }
    first = Pair("who?", "right", "T", positive_id="p1", other_positives=("p2",), **wrong)
    second = Pair("who?", "too", "", positive_id="p2", other_positives=("p1",), **wrong)
    assert pairs_in(tevatron, path, LabelledOptions()) == ([first, second], {})
    few, _ = pairs_in(tevatron, path, LabelledOptions("nq", max_negatives=1))
    assert (few[0].negatives, few[0].source) == (("wrong 0",), "nq")


def test_bad_records_are_counted(tmp_path: Path) -> None:
    records = [
        {**RECORD, "query": ""},
        {**RECORD, "positive_passages": []},
        {**RECORD, "positive_passages": "right"},
        {**RECORD, "positive_passages": [{"docid": "p1", "text": {}}]},
        {"query_id": "1", "query_text": "q", "positive_document_ids": ["1"], "negative_document_ids": []},
        {**RECORD, "positive_passages": [{"docid": "1", "text": "right, but listed as wrong"}]},
    ]
    pairs, dropped = pairs_in(tevatron, lines_written(tmp_path / "a.jsonl", records), LabelledOptions())
    assert [pair.negative_ids for pair in pairs] == [("0", "2")]
    assert dropped == {
        "no query, or an empty one": 1,
        "query without a positive": 2,
        "positives that are no list": 1,
        "positive that is no text": 1,
        "passages named by id, not given (read with tevatron-ids and the corpus)": 1,
        "negative listed twice, or also a positive": 1,
    }


def test_passages_named_by_id_are_those_of_the_corpus(tmp_path: Path) -> None:
    train = {
        "query_id": "5",
        "query_text": "who?",
        "query_image": None,
        "positive_document_ids": ["p2", "p1"],
        "negative_document_ids": ["1", "gone", "0"],
    }
    corpus = [{"docid": "p1", "text": "right"}, {"docid": "p2", "title": "T", "text": "too"}, *NEGATIVES]
    bad = [{"docid": "9", "text": None, "image": "x"}, {"query_id": "6"}, {**train, "query_id": None}]
    files = [lines_written(tmp_path / "train.jsonl", [train, *bad]), lines_written(tmp_path / "c.jsonl", corpus)]
    pairs, dropped = grouped_pairs(tevatron_ids, files, LabelledOptions("wiki"), tmp_path)
    wrong = {"negatives": ("wrong 1", "wrong 0"), "negative_titles": ("T1", "T0"), "negative_ids": ("1", "0")}
    assert pairs == [
        Pair("who?", "too", "T", query_id="5", positive_id="p2", other_positives=("p1",), source="wiki", **wrong),
        Pair("who?", "right", "", query_id="5", positive_id="p1", other_positives=("p2",), source="wiki", **wrong),
    ]
    assert dropped == {
        "judgement of a passage that no file holds": 1,
        "no passage, or an empty one": 1,
        "line with neither docid nor positive_document_ids": 1,
        "query without an id": 1,
    }
    assert dropped.examples["judgement of a passage that no file holds"] == "tevatron query 5 passage gone"
