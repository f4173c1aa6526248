import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_sets import flip_byte, make_shards

from data_tools import survey as survey_module
from data_tools.cli import main
from data_tools.inspect import InspectSettings, inspect, readable
from data_tools.length_charts import Bins, terminal_histogram
from data_tools.shard import MADE_FROM, shard
from data_tools.shard_settings import ShardSettings
from data_tools.survey import Keys, Lengths, Survey, sampled_blocks, survey
from largede.errors import DataError
from largede.streams.pair import Pair


def report(folder: Path, **changes: object) -> str:
    return "\n".join(inspect(folder, InspectSettings(**changes)))  # type: ignore[arg-type]


def test_the_report_of_known_pairs(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"query": f"word {i}", "positive": "a b c " * i, "source": "x"} for i in range(1, 9)
    ]
    rows += [rows[0], {"query": "word 2", "positive": "other", "source": "y", "negatives": ["n", "m"]}]
    rows += [{"query": "new", "positive": "other"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shard([tmp_path / "in.jsonl"], tmp_path / "out", ShardSettings())
    said = report(tmp_path / "out", samples=0)
    assert "figures below are of all 11 pairs, 1 block," in said
    assert "x                   9   81.8%" in said and "(none)              1    9.1%" in said
    assert "1 pair with some (9.1%), 2.0 each" in said
    assert "1 of 11 pairs repeat the texts of another one (9.09%)" in said
    assert "1 of 9 queries have several positives" in said
    assert "1 of 9 positives have several queries" in said
    assert "query words           1       2       2       2       2       2     1.9" in said


def test_a_sample_says_that_it_is_one_and_all_looks_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = make_shards(tmp_path)
    assert main(["inspect", str(index.folder), "--blocks", "5"]) == 0
    assert "a sample of 40 of 200 pairs, 5 blocks" in (said := capsys.readouterr().out)
    assert "within the sample" in said
    assert main(["inspect", str(index.folder), "--all"]) == 0
    assert "all 200 pairs, 25 blocks" in (said := capsys.readouterr().out)
    assert "within the sample" not in said


def test_samples_follow_the_seed_and_are_pairs_of_the_place_they_name(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    one, again, other = (report(index.folder, seed=seed, samples=8) for seed in (1, 1, 2))
    assert one == again != other
    places = [line.split() for line in one.splitlines() if line.startswith("shard-")]
    assert len(places) == 8
    found = [line.split("query", 1)[1].strip() for line in one.splitlines() if line.startswith("  query   ")]
    for (name, _, block, _, row), query in zip(places, found, strict=True):
        number = int(name[6:11])
        assert survey_module.pairs_of(index, number, int(block))[int(row)].query == query


def test_control_characters_of_a_text_never_reach_the_terminal(tmp_path: Path) -> None:
    text = "\x1b[2Jclear\x07 \u202e right to left\nline"
    (tmp_path / "in.jsonl").write_text(json.dumps({"query": text, "positive": text, "source": "\x1b]0;title\x07"}))
    shard([tmp_path / "in.jsonl"], tmp_path / "out", ShardSettings())
    said = report(tmp_path / "out")
    assert "\\x1b[2Jclear\\x07 \\u202e right to left ⏎ line" in said
    assert all(char.isprintable() or char == "\n" for char in said)
    assert readable("plain é 漢") == "plain é 漢"


def test_sources_are_counted_in_the_sample_when_nobody_counted_them_before(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    (index.folder / MADE_FROM).unlink()
    assert "sources (1, of those looked at)" in report(index.folder)


def test_damage_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = make_shards(tmp_path)
    flip_byte(index, 2, 1)
    assert main(["inspect", str(index.folder), "--all"]) == 2
    assert "shard-00002.tar block 1 does not match its checksum" in capsys.readouterr().err.replace(
        "block 0", "block 0"
    )


def test_several_processes_find_the_same(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    chosen = sampled_blocks(index, 12, seed=0)
    one, two = (survey(index, chosen, None, workers) for workers in (1, 2))
    assert isinstance(one, Survey) and one.pairs == two.pairs == 96
    assert one.text_bytes == two.text_bytes and one.sources == two.sources
    assert np.array_equal(one.words[1].counts, two.words[1].counts)
    assert np.array_equal(one.keys.keys, two.keys.keys)


def test_every_block_is_chosen_once_or_never(tmp_path: Path) -> None:
    index = make_shards(tmp_path)
    assert [part.tolist() for part in sampled_blocks(index, None, 0)] == [list(range(5))] * 5
    some = sampled_blocks(index, 7, seed=3)
    assert sum(map(len, some)) == 7 and all(len(set(part.tolist())) == len(part) for part in some)
    assert all(0 <= block < 5 for part in some for block in part.tolist())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=200), st.integers(1, 100))
def test_lengths_are_those_of_a_sorted_list(values: list[int], percent: int) -> None:
    lengths = Lengths()
    lengths.add(values)
    ordered = sorted(values)
    assert lengths.percentile(percent) == ordered[-(-len(ordered) * percent // 100) - 1]
    assert lengths.above(100) == sum(value > 100 for value in values)
    assert lengths.mean == pytest.approx(sum(values) / len(values))
    bins = Bins.of(lengths, 16)
    assert bins.counts.sum() == len(values) and bins.counts[: len(bins.counts)].min() >= 0
    assert len(terminal_histogram(lengths, 80)) == len(bins.starts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz")), min_size=1, max_size=30))
def test_duplicates_are_those_of_plain_sets(texts: list[tuple[str, str]]) -> None:
    keys = Keys()
    keys.add([Pair(query, positive) for query, positive in texts])
    found, distinct = keys.duplicates(), set(texts)
    assert found.copies == len(texts) - len(distinct)
    by_query, by_positive = (Counter(pair[side] for pair in distinct) for side in (0, 1))
    assert found.queries_with_more == sum(count > 1 for count in by_query.values())
    assert found.positives_with_more == sum(count > 1 for count in by_positive.values())
    assert (found.queries, found.positives) == (len(by_query), len(by_positive))


def test_keys_stay_bounded_and_keep_the_share_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "MOST_KEYS", 1000)
    keys = Keys()
    for first in range(0, 6000, 500):
        pairs = [Pair(f"q{i}", "p") for i in range(first, first + 500)]
        part = Keys()
        part.add(pairs + pairs[:100])
        keys.merge(part)
    assert keys.every >= 8 and len(keys.keys) <= 1000
    found = keys.duplicates()
    assert found.copies / found.pairs == pytest.approx(1 / 6, abs=0.05)


def test_a_tokenizer_gives_lengths_in_tokens_and_what_the_limits_cut(tmp_path: Path) -> None:
    from data_tools.vocabulary import write_vocabulary

    index = make_shards(tmp_path)
    write_vocabulary([tmp_path / "pairs.jsonl"], tmp_path / "vocabulary", 60, 0)
    said = report(index.folder, tokenizer=str(tmp_path / "vocabulary"), max_query_tokens=3, max_passage_tokens=10_000)
    assert "passages by tokens" in said and "query tokens" in said
    assert "cut          100.0% of queries at 3 tokens, 0.0% of passages at 10,000 tokens" in said


def test_the_picture_is_a_png_of_a_legible_size(tmp_path: Path) -> None:
    from PIL import Image

    index = make_shards(tmp_path)
    report(index.folder, picture=tmp_path / "lengths.png")
    with Image.open(tmp_path / "lengths.png") as picture:
        assert picture.format == "PNG" and picture.size == (1500, 630)
        assert len(set(picture.convert("RGB").resize((150, 63)).getdata())) > 20


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no index"):
        report(tmp_path)
