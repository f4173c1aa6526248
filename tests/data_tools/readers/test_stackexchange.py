import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import py7zr
import pytest
import zstandard
from beir_folder import shared_data

from data_tools.make_pairs import PairsResult, PairsSettings, make_pairs
from data_tools.pairs import PairReader
from data_tools.parts import pairs_in
from data_tools.readers.stackexchange import FORMAT, StackExchangeOptions, site_of
from largede.errors import DataError
from largede.streams.pair import Pair


def row(**attributes: object) -> str:
    return "<row " + " ".join(f"{name}={quoteattr(str(value))}" for name, value in attributes.items()) + " />\n"


def question(id_: int, title: str, accepted: int | None = None, score: int = 3, body: str = "<p>body</p>") -> str:
    more = {"AcceptedAnswerId": accepted} if accepted else {}
    return row(Id=id_, PostTypeId=1, Score=score, Body=body, Title=title, **more)


def answer(id_: int, parent: int, score: int, body: str | None = None) -> str:
    return row(Id=id_, PostTypeId=2, ParentId=parent, Score=score, Body=body or f"<p>answer <b>{id_}</b></p>")


ROWS = [
    question(1, "Accepted but not best?", accepted=3),
    answer(2, 1, score=9),
    answer(3, 1, score=4),
    answer(4, 1, score=-2),
    question(5, "Only  votes\ndecide", body="<p>the <i>body</i></p>"),
    answer(6, 5, score=1),
    answer(7, 5, score=8),
    answer(8, 5, score=8),
    question(9, "Nobody answers"),
    row(Id=10, PostTypeId=4, Score=0, Body="tag"),
]


def document(rows: Sequence[str]) -> bytes:
    return ('\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n' + "".join(rows) + "</posts>").encode()


def run(folder: Path, rows: Sequence[str] = ROWS, **options: Any) -> tuple[PairsResult, list[Pair]]:
    """Of the site `beer`, in order of the answers' ids."""
    (folder / "beer.xml").write_bytes(document(rows))
    result = make_pairs(FORMAT, StackExchangeOptions(**options), [folder / "beer.xml"], folder / "out", PairsSettings())
    return result, sorted(PairReader(pairs_in(folder / "out")), key=lambda pair: int(pair.positive_id.split("/")[1]))


def dropped(result: PairsResult) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in result.manifest["dropped"].items()}


def test_a_question_goes_with_its_accepted_or_else_its_best_answer(tmp_path: Path) -> None:
    result, found = run(tmp_path)
    assert found == [
        Pair(
            "Accepted but not best?",
            "answer 3",
            query_id="beer/1",
            positive_id="beer/3",
            group="beer/1",
            other_positives=("beer/2",),
            source="beer",
            score=4,
        ),
        Pair(
            "Only votes decide",
            "answer 7",
            query_id="beer/5",
            positive_id="beer/7",
            group="beer/5",
            other_positives=("beer/8", "beer/6"),
            source="beer",
            score=8,
        ),
    ]
    assert dropped(result) == {"neither question nor answer": 1, "question without an answer": 1}


@pytest.mark.parametrize(
    ("answers", "ids"),
    [
        ("accepted", ["beer/3"]),
        ("best", ["beer/2", "beer/7"]),
        ("accepted-or-best", ["beer/3", "beer/7"]),
        ("all", ["beer/2", "beer/3", "beer/6", "beer/7", "beer/8"]),
    ],
)
def test_which_answers_make_pairs_is_a_choice(tmp_path: Path, answers: str, ids: list[str]) -> None:
    result, found = run(tmp_path, answers=answers)
    assert [pair.positive_id for pair in found] == ids
    assert dropped(result).get("question without an accepted answer", 0) == (answers == "accepted")


def test_votes_decide_what_is_left_out(tmp_path: Path) -> None:
    result, found = run(tmp_path, answers="all", min_answer_score=5)
    assert [pair.positive_id for pair in found] == ["beer/2", "beer/7", "beer/8"]
    with pytest.raises(DataError, match="question below --min-question-score, 3 times"):
        run_again = tmp_path / "again"
        run_again.mkdir()
        run(run_again, min_question_score=4)
    assert result.written


def test_the_body_of_the_question_may_be_asked_too(tmp_path: Path) -> None:
    _, found = run(tmp_path, query="title-body")
    assert found[1].query == "Only votes decide\nthe body"


def test_bad_records_are_counted_and_pass(tmp_path: Path) -> None:
    bad = [
        row(Id=11, PostTypeId=1, Score=1, Body="no title"),
        row(Id=12, PostTypeId=2, Score=1, Body="no parent"),
        row(Id=13, PostTypeId=2, ParentId=1, Score="many", Body="x"),
        row(Id="../14", PostTypeId=2, ParentId=1, Score=1, Body="x"),
        row(),
        answer(15, 999, score=1),
        answer(16, 998, score=1),
        question(17, " "),
        question(18, "empty answer"),
        answer(19, 18, 2, "<p><img src='x'></p>"),
        question(20, "endless answer"),
        answer(21, 20, 2, "x" * 100_001),
        answer(7, 5, score=100),
    ]
    result, found = run(tmp_path, ROWS + bad)
    assert len(found) == 2
    assert dropped(result) == {
        "answer without its question": 2,
        "neither question nor answer": 2,
        "post given twice": 1,
        "post of more than 100,000 characters": 1,
        "post without id, score, body, title or question": 4,
        "post without text": 1,
        "question without an answer": 1,
        "question without title": 1,
    }
    assert all(entry["example"] for entry in result.manifest["dropped"].values())


def test_archives_of_two_sites_give_what_the_plain_files_give(tmp_path: Path) -> None:
    data = {"beer": document(ROWS), "wine": document(ROWS[:4])}
    with py7zr.SevenZipFile(tmp_path / "beer.7z", "w") as archive:
        for name in ("Badges.xml", "Posts.xml", "Votes.xml"):
            archive.writestr(data["beer"] if name == "Posts.xml" else b"<x/>", name)
    (tmp_path / "wine").mkdir()
    (tmp_path / "wine" / "Posts.xml.zst").write_bytes(zstandard.compress(data["wine"]))
    packed = [tmp_path / "beer.7z", tmp_path / "wine" / "Posts.xml.zst"]
    (tmp_path / "beer.xml").write_bytes(data["beer"])
    (tmp_path / "wine.xml").write_bytes(data["wine"])
    plain = [tmp_path / "beer.xml", tmp_path / "wine.xml"]
    for name, inputs in (("packed", packed), ("plain", plain)):
        make_pairs(FORMAT, StackExchangeOptions(), inputs, tmp_path / name, PairsSettings(workers=2))
    found = [list(PairReader(pairs_in(tmp_path / name))) for name in ("packed", "plain")]
    assert found[0] == found[1] and sorted(pair.source for pair in found[0]) == ["beer", "beer", "wine"]


@pytest.mark.parametrize(
    ("path", "site"),
    [
        ("beer.stackexchange.com.7z", "beer.stackexchange.com"),
        ("stackoverflow.com-Posts.7z", "stackoverflow.com"),
        ("dumps/ai.xml.zst", "ai"),
        ("dumps/ai.xml", "ai"),
        ("coffee.stackexchange.com/Posts.xml", "coffee.stackexchange.com"),
        ("coffee/Posts.xml.gz", "coffee"),
    ],
)
def test_the_site_is_the_name_of_the_file_or_folder(path: str, site: str) -> None:
    assert site_of(Path(path)) == site


def test_one_site_twice_is_refused(tmp_path: Path) -> None:
    for name in ("beer.xml", "beer.xml.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="are both of the site beer"):
        make_pairs(
            FORMAT,
            StackExchangeOptions(),
            [tmp_path / "beer.xml", tmp_path / "beer.xml.gz"],
            tmp_path / "out",
            PairsSettings(),
        )


def test_what_an_answer_quotes_of_its_question_is_left_out(tmp_path: Path) -> None:
    title = "How long should green tea steep in a pot of iron?"
    body = "<p>My water is always too hot and my tea bitter, even in winter.</p>"
    quotes = (title, body, "The manual says to wait for two minutes and no longer.", f"{title[:20]}")
    rows = [question(1, title, body=body)]
    rows += [answer(2 + i, 1, i, f"<blockquote>{quote}</blockquote>\n<p>Wait.</p>") for i, quote in enumerate(quotes)]
    _, found = run(tmp_path, rows, answers="all")
    assert [pair.positive for pair in found] == ["Wait.", "Wait.", f"{quotes[2]}\nWait.", f"{quotes[3].strip()}\nWait."]


def test_real_dumps_pass(tmp_path: Path) -> None:
    inputs = [shared_data("dumps", f"{name}.xml") for name in ("ai", "beer", "coffee")]
    result = make_pairs(FORMAT, StackExchangeOptions(), inputs, tmp_path / "out", PairsSettings(workers=2))
    found = list(PairReader(pairs_in(tmp_path / "out")))
    assert len(found) == result.manifest["pairs"] == 1222
    assert dropped(result) == {
        "neither question nor answer": 268,
        "no answer reaches --min-answer-score": 2,
        "question without an answer": 85,
    }
    assert len({pair.query_id for pair in found}) == 1222 and not any("<p>" in pair.positive for pair in found)


PEAK = """
import sys
from pathlib import Path
from data_tools import groups
from data_tools.make_pairs import PairsSettings, make_pairs
from data_tools.readers.stackexchange import FORMAT, StackExchangeOptions
groups.RUN_BYTES = groups.BUCKET_BYTES = 1 << 21
folder = Path(sys.argv[1])
make_pairs(FORMAT, StackExchangeOptions(), [folder / "site.xml"], folder / "out", PairsSettings())
# Not ru_maxrss, which a process takes over from the one that started it.
print(int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) // 1024)
"""


def test_memory_does_not_grow_with_the_dump(tmp_path: Path) -> None:
    peaks = []
    for name, threads in (("small", 3000), ("large", 12_000)):
        (tmp_path / name).mkdir()
        body = f"<p>{'some words of text ' * 40}</p>"
        rows = [question(2 * i, f"question {i}") + answer(2 * i + 1, 2 * i, 1, body) for i in range(threads)]
        (tmp_path / name / "site.xml").write_bytes(document(rows))
        words = [sys.executable, "-c", PEAK, str(tmp_path / name)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ)
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 6, peaks
