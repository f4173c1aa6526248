import json
from pathlib import Path
from typing import Any

import pytest
from labelled_files import grouped_pairs, lines_written, written

from data_tools.readers import msmarco
from data_tools.readers.draw import draw
from data_tools.readers.msmarco import MsMarcoOptions
from largede.errors import DataError
from largede.streams.pair import Pair


def files_written(folder: Path, **more: str) -> list[Path]:
    """Query 1 has the positives 10 and 11, query 2 has 12; passages 0 to 29 exist."""
    texts = {
        "collection.tsv": "".join(f"{i}\tpassage {i}\n" for i in range(30)),
        "queries.train.tsv": "1\tfirst query\n2\tsecond query\n3\tnever judged\n",
        "qrels.train.tsv": "1\t0\t10\t1\n1\t0\t11\t1\n2\t0\t12\t1\n",
    }
    return [written(folder / name, text) for name, text in {**texts, **more}.items()]


def read(files: list[Path], tmp_path: Path, **options: Any) -> tuple[dict[str, list[Pair]], Any]:
    """Pairs by query id."""
    chosen = MsMarcoOptions(**options)
    pairs, dropped = grouped_pairs(msmarco, msmarco.files_of(files, chosen), chosen, tmp_path)
    return {id_: [pair for pair in pairs if pair.query_id == id_] for id_ in ("1", "2", "3")}, dropped


def hard_negatives(folder: Path, *records: Any) -> Path:
    return lines_written(folder / "msmarco-hard-negatives.jsonl", records)


def test_queries_meet_their_passages(tmp_path: Path) -> None:
    pairs, dropped = read(files_written(tmp_path), tmp_path)
    assert pairs["1"] == [
        Pair("first query", "passage 10", query_id="1", positive_id="10", other_positives=("11",), source="msmarco"),
        Pair("first query", "passage 11", query_id="1", positive_id="11", other_positives=("10",), source="msmarco"),
    ]
    assert pairs["2"] == [Pair("second query", "passage 12", query_id="2", positive_id="12", source="msmarco")]
    assert not pairs["3"]
    assert not dropped


@pytest.mark.parametrize("blank", [" ", "   ", " \t", "\t"])
def test_judgements_may_lie_between_any_white_space(tmp_path: Path, blank: str) -> None:
    lines = [["1", "0", "10", "1"], ["1", "Q0", "11", "1"], ["2", "0", "12", "1"]]
    qrels = "".join(blank.join(line) + "\r\n" for line in lines)
    plain, _ = read(files_written(tmp_path), tmp_path)
    pairs, dropped = read(files_written(tmp_path, **{"qrels.train.tsv": qrels}), tmp_path)
    assert pairs == plain and not dropped


def test_ids_between_tabs_may_have_blanks(tmp_path: Path) -> None:
    qrels = {"qrels.train.tsv": "1\tthe passage\t1\n"}
    files = files_written(tmp_path, **{"collection.tsv": "the passage\ttext\n"}, **qrels)
    assert [pair.positive_id for pair in read(files, tmp_path)[0]["1"]] == ["the passage"]


def test_rocketqa_s_names_and_titles_in_a_file_of_their_own(tmp_path: Path) -> None:
    files = [
        written(tmp_path / "para.txt", "10\tpassage\n11\tother\n"),
        written(tmp_path / "para.title.txt", "10\tTitle\n11\t-\n"),
        written(tmp_path / "train.query.txt", "1\tq\n"),
        written(tmp_path / "qrels.train.addition.tsv", "1\t10\n1\t11\n"),
    ]
    pairs, dropped = read(files, tmp_path)
    assert [(pair.title, pair.positive) for pair in pairs["1"]] == [("Title", "passage"), ("", "other")]
    assert not dropped
    three = written(tmp_path / "corpus.tsv", "10\tTitle\tpassage\n11\t\tother\n")
    assert read([three, *files[2:]], tmp_path)[0] == pairs


def test_negatives_of_triples_are_drawn_and_never_a_positive(tmp_path: Path) -> None:
    triples = "".join(f"1\t10\t{i}\n" for i in range(5, 20)) + "2\t12\t20\n2\t12\t12\n"
    files = files_written(tmp_path, **{"qidpidtriples.train.full.2.tsv": triples})
    pairs, dropped = read(files, tmp_path)
    # 11 is a positive by the qrels, although the triples say otherwise.
    assert dropped == {"negative listed twice, or also a positive": 1}
    for pair in pairs["1"]:
        assert set(pair.negative_ids) == {str(i) for i in range(5, 20)} - {"10", "11"}
        assert pair.negatives == tuple(f"passage {i}" for i in pair.negative_ids)
    assert pairs["2"][0].negative_ids == ("20",)
    few, _ = read(files, tmp_path, max_negatives=3)
    assert len(few["2"][0].negative_ids) == 1
    assert 2 <= len(few["1"][0].negative_ids) <= 3
    assert read(files, tmp_path, max_negatives=3, seed=1)[0] != few
    assert read(files, tmp_path, max_negatives=3)[0] == few


def test_negatives_of_systems_are_taken_from_the_window_of_ranks(tmp_path: Path) -> None:
    lists = {"bm25": list(range(13, 30)), "tas-b": [10, 0, 1, 2]}
    files = [*files_written(tmp_path), hard_negatives(tmp_path, {"qid": 1, "pos": [10], "neg": lists})]
    pairs, dropped = read(files, tmp_path, systems="bm25", first_rank=3, last_rank=5)
    assert set(pairs["1"][0].negative_ids) == {"15", "16", "17"}
    assert not dropped
    assert set(read(files, tmp_path, systems="tas-b")[0]["1"][0].negative_ids) == {"0", "1", "2"}
    assert len(read(files, tmp_path)[0]["1"][0].negative_ids) == 20
    _, dropped = read(files, tmp_path, systems="bm25,none")
    assert dropped == {"query without negatives of none": 1}
    with pytest.raises(DataError, match="--first-rank 5, --last-rank 4"):
        MsMarcoOptions(first_rank=5, last_rank=4)


def test_negatives_scored_near_a_positive_are_left_out(tmp_path: Path) -> None:
    positives = [{"pid": 10, "ce-score": 9.0}, {"pid": 11, "ce-score": 8.0}]
    scored = [{"pid": 13, "ce-score": 7.5}, {"pid": 14, "ce-score": 4.9}, {"pid": 15, "ce-score": 5.0}]
    files = [*files_written(tmp_path), hard_negatives(tmp_path, {"qid": "1", "pos": positives, "neg": {"s": scored}})]
    pairs, dropped = read(files, tmp_path, ce_score_margin=3.0)
    assert set(pairs["1"][0].negative_ids) == {"14", "15"}
    assert dropped == {"negative within --ce-score-margin of a positive": 1}
    assert len(read(files, tmp_path)[0]["1"][0].negative_ids) == 3


def test_bad_lines_and_dangling_ids_are_counted(tmp_path: Path) -> None:
    more = {
        "collection.tsv": "10\tten\n11\n\tno id\n12\t \n10\tten again\n",
        "queries.train.tsv": "1\tq\n2\t\n1\tq again\n",
        "qrels.train.tsv": "1\t0\t10\t1\n1\t0\t99\t1\n7\t0\t10\t1\n1\t0\t10\tx\n1\t0\t10\t0\n1\n",
    }
    bad = [{"qid": 1}, {"qid": None, "neg": {}}, [], {"qid": 1, "neg": {"s": 5}}, {"qid": 1, "neg": {"s": [None]}}]
    files = [*files_written(tmp_path, **more), hard_negatives(tmp_path, *bad)]
    pairs, dropped = read(files, tmp_path)
    assert [(pair.query, pair.positive) for pair in pairs["1"]] == [("q", "ten")]
    assert dropped == {
        "line of other than 2 or 3 columns": 1,
        "line of other than 2 or 3 or 4 columns": 1,
        "passage without an id": 2,
        "no passage, or an empty one": 1,
        "passage whose id came before": 1,
        "no query, or an empty one": 1,
        "query whose id came before": 1,
        "judgement of a passage that no file holds": 1,
        "judgement of a query that no file holds": 1,
        "judgement whose grade is no whole number": 1,
        "judgement below --min-grade": 1,
        "query without an id": 1,
        "record that is no JSON object": 2,
        "negatives that are no list": 1,
    }


def test_a_missing_part_and_a_name_that_says_nothing_are_refused(tmp_path: Path) -> None:
    files = files_written(tmp_path)
    with pytest.raises(DataError, match="no qrels among"):
        msmarco.files_of(files[:2], MsMarcoOptions())
    with pytest.raises(DataError, match="does not tell which part"):
        msmarco.files_of([*files, tmp_path / "train.tsv"], MsMarcoOptions())
    with pytest.raises(DataError, match="does not exist"):
        msmarco.files_of([*files, tmp_path / "queries.dev.tsv"], MsMarcoOptions())


def test_a_draw_does_not_depend_on_the_order_of_the_candidates_and_is_fair() -> None:
    ids = [str(i) for i in range(100)]
    assert draw("q", ids, 10, 0) == draw("q", ids[::-1] + ids, 10, 0)
    assert draw("q", ids, 10, 0) != draw("q", ids, 10, 1)
    assert draw("q", ids, 10, 0) != draw("r", ids, 10, 0)
    assert set(draw("q", ids, 1000, 0)) == set(ids)
    drawn = [id_ for query in range(2000) for id_ in draw(str(query), ids, 5, 0)]
    # 10,000 draws among 100: a standard deviation of 9.7 around 100.
    assert all(55 < drawn.count(id_) < 145 for id_ in ids)


def test_a_broken_line_of_hard_negatives_is_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "a-hard-negatives.jsonl", json.dumps({"qid": 1, "pos": [], "neg": {"s": [13]}}) + "\n{")
    pairs, dropped = read([*files_written(tmp_path), path], tmp_path)
    assert pairs["1"][0].negative_ids == ("13",)
    assert dropped == {"line that is not JSON": 1}
