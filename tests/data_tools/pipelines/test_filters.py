import json
from pathlib import Path
from typing import Any

import pytest
from beir_folder import shared_data
from pair_parts import read_lines, read_pairs, real_pairs, run_here, write_parts

from data_tools.cli import main
from data_tools.pipelines.filters import FilterSettings, fault_of, filter_plan
from largede.errors import DataError

GOOD = {"query": "how tall is the tower", "positive": "The tower is 330 metres tall, antennas included."}


def filtered(tmp_path: Path, pairs: list[dict[str, Any]], settings: FilterSettings, **options: Any) -> dict[str, Any]:
    inputs = write_parts(tmp_path / "pairs", [pairs])
    report = run_here(filter_plan(settings, **options), inputs, tmp_path / "out").report
    assert report is not None
    return report


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"query": "tower"}, "query too short"),
        ({"query": "why " * 200}, "query too long"),
        ({"positive": "Very tall indeed."}, "passage too short"),
        ({"positive": "word " * 20_000}, "passage too long"),
        ({"score": 0}, "score too low"),
        ({"positive": "[deleted]", "title": "a title of more than five words"}, "passage: deleted or removed"),
        ({"query": "(removed by moderator)"}, "query: deleted or removed"),
        ({"positive": "Hello there. I am a bot, and this action was performed."}, "passage: a bot's"),
        ({"positive": "see https://example.org/a/very/long/path/to/something.html now"}, "passage: mostly links"),
        ({"positive": "1 2 3 4 5 6 7 8 9"}, "passage: no letters"),
        ({"positive": "| 1.0 | 2.0 | 3.0 | 4.0 | 5.0 | 6.0 | total"}, "passage: mostly digits or symbols"),
        ({"positive": "the same line again\n" * 9}, "passage: mostly repeated lines"),
        ({"positive": "How tall is the tower?!"}, "query is the passage"),
        ({"positive": "is the tower?", "title": "How tall"}, "query is the passage"),
        ({"positive": "Der Turm ist dreihundertdreißig Meter hoch, die Antennen mitgezählt."}, "language de"),
    ],
)
def test_each_kind_of_bad_pair_goes_under_its_own_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    bad = {**GOOD, "query": "wie hoch ist der Turm"} if reason == "language de" else GOOD
    settings = FilterSettings(languages=("en",), min_score=1)
    report = filtered(tmp_path, [GOOD, {**bad, **changes}], settings)
    assert report["removed"] == {reason: 1}
    assert (report["read"], report["kept"]) == (2, 1)
    assert report["examples"][reason]["pair"]["query"] == {**bad, **changes}["query"].strip()[:700]


def test_kept_pairs_are_written_as_they_were_with_keys_nobody_knows(tmp_path: Path) -> None:
    odd = {**GOOD, "zeta": {"b": [1, 2.50], "a": None}, "query": "how  tall\tis é"}
    filtered(tmp_path, [odd, GOOD], FilterSettings())
    assert read_lines(tmp_path / "out") == [json.dumps(pair, ensure_ascii=False).encode() for pair in (odd, GOOD)]


def test_code_lists_and_short_formulas_stay() -> None:
    for text in (
        "for i in range(10):\n    print(i)\n    total += i",
        "- first, boil water\n- then add salt\n- wait",
        "See https://example.org for the details, which explain how to measure the tower's height.",
    ):
        assert fault_of(text, FilterSettings()) is None


@pytest.mark.parametrize(
    "text",
    [
        "I am a bot, and this action was performed automatically.",
        "Beep boop! I'm a bot created by u/somebody to convert units.",
        "100 miles are 161 kilometres. ^^I ^^am a robot? No: *I am a bot* | feedback to the owner",
        "Sorry, your submission has been automatically removed because its title is short. " + "Read the rules. " * 30,
        "Hello u/somebody,\n\n**Your post has been removed** for the following reason: no pictures of cats.",
        "RemindMe! 3 days",
        "Long rules of the forum. " * 30 + "Please contact the moderators of this subreddit if you have any questions.",
        "It is 4 inches. " * 20 + "I am a bot, and this action was performed automatically.",
    ],
)
def test_what_programs_write_is_boilerplate(text: str) -> None:
    assert fault_of(text, FilterSettings(max_repeated_lines=1)) == "a bot's"


@pytest.mark.parametrize(
    "text",
    [
        "I'm a botanist and I recommend pruning in spring.",
        "I am a bottle collector; this one is from 1890.",
        "I'm a bot developer and use Python for all of them.",
        "The captcha thinks I am a bot. How do I prove the opposite?",
        "How do websites know whether I'm a bot?",
        "My post has been removed, why? It followed all the rules.",
        "Edit the text. If your post has been removed by a moderator, ask why. " + "Then wait. " * 20,
        "The robot of the film says beep boop whenever it is pleased.",
        "Write to the people who run the place: you can contact the moderators of this subreddit by mail.",
        "Type RemindMe! and a number of days under a comment.",
    ],
)
def test_what_people_write_about_bots_and_removed_posts_stays(text: str) -> None:
    assert fault_of(text, FilterSettings(max_repeated_lines=1)) is None


def test_pairs_without_a_score_and_of_unsure_language_stay(tmp_path: Path) -> None:
    unsure = {"query": "hotel taxi 4711", "positive": "Hotel Central, Taxi 4711, Bar Roma, Metro Opera"}
    report = filtered(
        tmp_path, [GOOD, unsure], FilterSettings(languages=("en",), language_confidence=0.99, min_score=5)
    )
    assert report["removed"] == {}


@pytest.mark.parametrize(
    ("query", "passage"),
    [
        ("How do you pour the perfect beer", "Tilt the glass and pour slowly, then let the head rise."),
        ("What causes Fibrolamellar carcinoma?", "The exact underlying cause of fibrolamellar carcinoma is unknown."),
        ("Where do Ctenophora live?", "Ctenophora (from the Greek κτείς kteis 'comb' and φέρω pherō 'carry')."),
        (
            "how many episodes are there in dragon ball z",
            "Dragon Ball Z ( ドラゴンボール ゼット , Doragon Bōru Zetto ) is the sequel to the Dragon Ball TV series",
        ),
    ],
)
def test_english_pairs_about_foreign_names_stay(tmp_path: Path, query: str, passage: str) -> None:
    settings = FilterSettings(languages=("en",))
    assert filtered(tmp_path, [{"query": query, "positive": passage}], settings)["removed"] == {}


@pytest.mark.parametrize(
    ("code", "meant"),
    [("english", "en"), ("EN", "en"), ("en-GB", "en"), ("deu", "de"), ("german", "de"), ("zg", "zh"), ("french", "fr")],
)
def test_a_language_nobody_knows_is_refused_with_the_nearest(code: str, meant: str) -> None:
    with pytest.raises(DataError, match=rf"--languages {code}[\s\S]*did you mean {meant}\?"):
        filter_plan(FilterSettings(languages=("en", code)))


def test_a_line_that_is_no_pair_ends_the_run_and_is_named(tmp_path: Path) -> None:
    inputs = write_parts(tmp_path / "pairs", [[GOOD, {"query": "no passage"}]])
    with pytest.raises(DataError, match="line 2 has no positive"):
        run_here(filter_plan(FilterSettings()), inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_lines_within_the_limit_are_counted_with_an_example(tmp_path: Path) -> None:
    report = filtered(tmp_path, [GOOD, {"query": "no passage"}], FilterSettings(), skip_bad=1)
    assert report["removed"] == {"no usable pair on the line": 1}
    assert "has no positive" in report["examples"]["no usable pair on the line"]["problem"]
    assert read_pairs(tmp_path / "out") == [GOOD]


def test_counts_of_parts_add_up(tmp_path: Path) -> None:
    parts = [[GOOD] * 3 + [{**GOOD, "query": "x"}], [{**GOOD, "query": "y"}] * 2, [GOOD]]
    inputs = write_parts(tmp_path / "pairs", parts)
    report = run_here(filter_plan(FilterSettings()), inputs, tmp_path / "out").report
    assert report is not None
    assert [(part["read"], part["kept"]) for part in report["parts"]] == [(4, 3), (2, 0), (1, 1)]
    assert (report["read"], report["kept"], report["removed"]) == (7, 4, {"query too short": 3})
    assert len(read_pairs(tmp_path / "out")) == report["kept"]


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(DataError, match="--min-query-words 9 and --max-query-words 3"):
        FilterSettings(min_query_words=9, max_query_words=3)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("min_letters", 7.0),
        ("max_links", -3.0),
        ("max_repeated_lines", 1.5),
        ("language_confidence", 9.0),
        ("max_allowed_share", float("nan")),
        ("min_score", float("inf")),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_flag(setting: str, value: float) -> None:
    with pytest.raises(DataError, match=f"--{setting.replace('_', '-')} {value}"):
        FilterSettings(**{setting: value})  # type: ignore[arg-type]


def test_a_filter_that_keeps_nothing_says_what_removed_the_pairs_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [[GOOD] * 3, [{**GOOD, "query": "x"}] * 2, []]
    inputs = write_parts(tmp_path / "pairs", parts)
    command = ["filter", str(inputs), "--out", str(tmp_path / "out"), "--workers", "1"]
    for _ in range(2):
        assert main([*command, "--min-query-words", "9"]) == 2
        said = capsys.readouterr().err
        assert f"of the 5 pairs of {inputs} none is kept (query too short, 5 times)" in said
        assert [path.name for path in tmp_path.iterdir()] == ["pairs"]
    assert main(command) == 0
    assert [len(part) for part in map(read_pairs, [tmp_path / "out"])] == [3]


def test_nearly_all_real_english_pairs_stay(tmp_path: Path) -> None:
    shared_data("pairs")
    pairs = [pair for name in ("ragqa_arena", "medquad", "stackexchange") for pair in real_pairs(name, 600)]
    report = filtered(tmp_path, pairs, FilterSettings(languages=("en",)))
    assert report["kept"] >= 0.99 * len(pairs)
