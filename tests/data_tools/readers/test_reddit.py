import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from data_tools.make_pairs import PairsResult, PairsSettings, make_pairs
from data_tools.pairs import PairReader
from data_tools.parts import pairs_in
from data_tools.readers.reddit import FORMAT, RedditOptions
from largede.errors import DataError
from largede.streams.pair import Pair


def post(id_: str, title: str, selftext: str = "", author: str = "ann", **more: object) -> dict[str, object]:
    common = {"id": id_, "title": title, "selftext": selftext, "author": author, "score": 10, "subreddit": "tea"}
    return common | more


def comment(
    id_: str, parent: str, body: str, link: str = "p", author: str = "bob", score: Any = 2
) -> dict[str, object]:
    ids = {"id": id_, "parent_id": parent, "link_id": f"t3_{link}"}
    return ids | {"body": body, "author": author, "score": score, "subreddit": "tea"}


POSTS = [post("p", "How long should green tea steep?", "I have **boiling** water only &amp; no thermometer.")]
COMMENTS = [
    comment("a", "t3_p", "Two minutes, but let the water cool first.", score=5),
    comment("b", "t3_p", "&gt; How long should green tea steep?\n\nOne minute at most, I find.", score=9),
    comment("c", "t1_a", "Cool for how long before I pour it?"),
    comment("d", "t1_c", "Five minutes off the boil is [plenty](http://x.org)."),
]


def jsonl(records: Sequence[object]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def run(
    folder: Path, comments: Sequence[object] = COMMENTS, posts: Sequence[object] = POSTS, **options: Any
) -> tuple[PairsResult, list[Pair]]:
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    for name, records in (("RS_2015-01.zst", posts), ("RC_2015-01.zst", comments)):
        frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        (folder / name).write_bytes(frame.compress(jsonl(records)) + frame.flush())
    inputs = [folder / "RS_2015-01.zst", folder / "RC_2015-01.zst"]
    result = make_pairs(FORMAT, RedditOptions(**options), inputs, folder / "out", PairsSettings())
    return result, list(PairReader(pairs_in(folder / "out")))


def dropped(result: PairsResult) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in result.manifest["dropped"].items()}


def ids(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(pair.query_id.removeprefix("reddit/"), pair.positive_id.removeprefix("reddit/")) for pair in pairs]


def test_posts_and_comments_go_with_their_replies(tmp_path: Path) -> None:
    result, found = run(tmp_path)
    assert ids(found) == [("t3_p", "t1_a"), ("t3_p", "t1_b"), ("t1_a", "t1_c"), ("t1_c", "t1_d")]
    assert found[0] == Pair(
        "How long should green tea steep?\nI have boiling water only & no thermometer.",
        "Two minutes, but let the water cool first.",
        query_id="reddit/t3_p",
        positive_id="reddit/t1_a",
        group="reddit/t3_p",
        source="reddit/tea",
        score=5,
    )
    assert found[1].positive == "One minute at most, I find."
    assert found[3].positive == "Five minutes off the boil is plenty."
    assert dropped(result) == {}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pairs": "post-reply"}, [("t3_p", "t1_a"), ("t3_p", "t1_b")]),
        ({"pairs": "reply-reply"}, [("t1_a", "t1_c"), ("t1_c", "t1_d")]),
        ({"replies": "best"}, [("t3_p", "t1_b"), ("t1_a", "t1_c"), ("t1_c", "t1_d")]),
        ({"min_score": 3}, [("t3_p", "t1_a"), ("t3_p", "t1_b")]),
        ({"min_words": 8}, [("t3_p", "t1_a"), ("t1_a", "t1_c")]),
    ],
)
def test_options_choose_and_what_they_leave_out_is_counted(
    tmp_path: Path, options: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    result, found = run(tmp_path, **options)
    assert ids(found) == expected
    posts, replies = 1, 4
    assert sum(dropped(result).values()) == replies - len(expected) + posts - len({"t3_p"} & set(dict(expected)))


def test_what_nobody_should_learn_from_is_counted_by_reason(tmp_path: Path) -> None:
    bad = [
        comment("e", "t3_p", "[deleted]"),
        comment("f", "t3_p", "[removed]"),
        comment("g", "t3_p", "I am a bot, bleep, bloop, and this is a rule.", author="AutoModerator"),
        comment("h", "t3_p", "Here is a preview of the article.", author="tea_helper-bot"),
        comment("i", "t1_e", "an answer to what was deleted long ago"),
        comment("j", "t1_zzz", "an answer to nothing that is here"),
        comment("k", "t3_p", "lol no"),
        comment("l", "t3_p", ""),
        comment("m", "t1_k", "an answer to very few words indeed"),
        comment("n", "t3_p", "a reply that many have voted down", score=-7),
        comment("a", "t3_p", "the same comment from another dump, edited"),
        comment("o", "t3_p", "votes that are hidden from all", score=None),
        comment("q", "t3_p", "half a sign \ud83d is no sign"),
        {"id": 7, "title": "no author"},
        ["a list"],
    ]
    result, found = run(tmp_path, COMMENTS + bad)
    assert ids(found) == [("t3_p", "t1_a"), ("t3_p", "t1_b"), ("t1_a", "t1_c"), ("t1_c", "t1_d")]
    assert dropped(result) == {
        "deleted or removed": 2,
        "given twice": 1,
        "half a Unicode character": 1,
        "line that is no JSON object": 1,
        "neither post nor comment with author, text and votes": 2,
        "reply below --min-score": 1,
        "reply below --min-words": 2,
        "reply to a text below --min-words": 1,
        "reply to a text that is missing or was dropped": 2,
        "written by a bot": 2,
    }
    assert result.manifest["dropped"]["written by a bot"]["example"] == "t1_g by AutoModerator"


def test_posts_in_no_pair_are_counted(tmp_path: Path) -> None:
    posts = [*POSTS, post("q", "Is white tea really white?"), post("r", "Any good tea shops around here?")]
    posts += [post("s", "Nobody answers this either, it seems")]
    comments = [*COMMENTS, comment("z", "t3_q", "no", link="q"), comment("y", "t1_z", "why not, pray?", link="q")]
    result, found = run(tmp_path, comments, posts)
    assert len(found) == 4
    assert dropped(result) == {
        "post of whose replies none makes a pair": 1,
        "post without a reply": 2,
        "reply below --min-words": 1,
        "reply to a text below --min-words": 1,
    }
    assert result.manifest["dropped"]["post without a reply"]["example"].startswith(("t3_r: Any", "t3_s: Nobody"))


def test_posts_alone_are_refused_with_their_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pairs in .*\(post without a reply, 1 time\)"):
        run(tmp_path, [])


PEOPLE = ["Abbot", "Talbot", "MrRobot", "abbott", "robotics_fan", "ABBOT", "botany-lover", "Bot"]
BOTS = ["AutoModerator", "xyz_bot", "xyz-bot", "WikiTextBot", "RemindMeBot", "HelperBot_", "autotldr", "a_bot_b"]


def test_bots_are_told_from_people_by_how_they_spell_themselves(tmp_path: Path) -> None:
    body = "Two minutes, but let the water cool first."
    comments = [comment(f"n{number}", "t3_p", body, author=name) for number, name in enumerate(PEOPLE + BOTS)]
    result, found = run(tmp_path, comments)
    assert len(found) == len(PEOPLE) and dropped(result) == {"written by a bot": len(BOTS)}


def test_threads_are_joined_across_files_and_processes(tmp_path: Path) -> None:
    """The reply is in the file of another month than the post, and the files are in no order."""
    count = 200
    posts = [post(f"p{i}", f"question number {i} about tea") for i in range(count)]
    replies = [comment(f"c{i}", f"t3_p{i}", f"reply number {i} about tea", link=f"p{i}") for i in range(count)]
    answers = [comment(f"d{i}", f"t1_c{i}", f"answer number {i} to a reply", link=f"p{i}") for i in range(count)]
    names = ("RC_2015-02.gz", "RC_2015-01.gz", "RS_2015-01.gz")
    for name, records in zip(names, (answers, replies, posts), strict=True):
        (tmp_path / name).write_bytes(gzip.compress(jsonl(records)))
    inputs = [tmp_path / name for name in names]
    for workers in (1, 2):
        make_pairs(FORMAT, RedditOptions(), inputs, tmp_path / f"out{workers}", PairsSettings(workers))
    one, two = (list(PairReader(pairs_in(tmp_path / f"out{workers}"))) for workers in (1, 2))
    assert one == two
    assert sorted((pair.query, pair.positive) for pair in one) == sorted(
        [(f"question number {i} about tea", f"reply number {i} about tea") for i in range(count)]
        + [(f"reply number {i} about tea", f"answer number {i} to a reply") for i in range(count)]
    )


def test_a_truncated_month_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "RC_2015-01.zst"
    path.write_bytes(zstandard.compress(jsonl(COMMENTS * 100))[:-4])
    with pytest.raises(DataError, match="RC_2015-01.zst line .* cannot be decompressed"):
        make_pairs(FORMAT, RedditOptions(), [path], tmp_path / "out", PairsSettings())
    assert not (tmp_path / "out").exists()
