"""From pairs or a collection to pairs with hard negatives: what comes out, again and again, and what is done again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hash_encoder import hash_model
from made_pool import collection, mined, write_pairs

from largede.retrieval.corpus import open_benchmark
from largede.retrieval.mine import lists as lists_module
from largede.retrieval.mine.settings import MineSettings
from largede.retrieval.mine.sources import open_source
from largede.retrieval.mine.stages import MineJob, Mining, mine
from largede.streams.pair import Pair


def negatives_of(pairs: list[Pair]) -> list[tuple[str, ...]]:
    return [pair.negatives for pair in pairs]


def test_pairs_come_out_as_they_went_in_but_for_their_negatives(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    before = list(open_source([data], "train").pairs())
    pairs, summary = mined(data, tmp_path / "out")
    assert [pair.without_negatives() for pair in pairs] == before
    assert all(pair.negative_titles and not pair.negative_ids for pair in pairs)
    positives = {pair.positive for pair in before}
    group_of = {pair.positive: pair.group for pair in before}
    asked = {(pair.query, pair.positive) for pair in before}
    for pair in pairs:
        assert len(pair.negatives) == len(set(pair.negatives)) == 4 and set(pair.negatives) <= positives
        assert not any((pair.query, negative) in asked for negative in pair.negatives)
        assert not any(group_of[negative] == pair.group for negative in pair.negatives)
    assert summary["pairs"] == 48 and summary["negatives"] == 192 and summary["left_out"]["known positive"] > 48


def test_a_collection_gives_a_pair_for_each_judged_passage_and_never_a_judged_negative(tmp_path: Path) -> None:
    data = collection(tmp_path / "data")
    benchmark = open_benchmark(data, "train")
    pairs, summary = mined(data, tmp_path / "out")
    assert len(pairs) == sum(len(judged) for judged in benchmark.qrels.values())
    for pair in pairs:
        judged = benchmark.qrels[pair.query_id]
        assert {pair.positive_id, *pair.other_positives} == set(judged)
        assert len(pair.negative_ids) == 4 and not set(pair.negative_ids) & set(judged)
    assert summary["mean_score"]["negatives"] < 1.0


def test_windows_do_not_show_in_the_result(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    whole, one = mined(data, tmp_path / "whole", margin=0.01)
    parts, other = mined(data, tmp_path / "parts", margin=0.01, window=7, shard_size=5)
    assert len(list((tmp_path / "parts" / "pairs").glob("part-*"))) == 7
    assert parts == whole
    assert {**one, "settings": 0, "mean_score": 0} == {**other, "settings": 0, "mean_score": 0}


def test_the_seed_decides_the_draw(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    drawn = [negatives_of(mined(data, tmp_path / f"out{n}", seed=seed)[0]) for n, seed in enumerate((1, 1, 2))]
    assert drawn[0] == drawn[1] != drawn[2]


def test_top_takes_the_first_of_the_window(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    few, _ = mined(data, tmp_path / "few", pick="top", negatives=2)
    more, _ = mined(data, tmp_path / "more", pick="top", negatives=5)
    assert [pair.negatives for pair in few] == [pair.negatives[:2] for pair in more]


def test_a_pair_with_too_few_candidates_is_kept_with_fewer_and_counted(tmp_path: Path) -> None:
    pairs, summary = mined(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out", ranks=(1, 6), margin=0.1)
    assert len(pairs) == 48 and summary["pairs_with_fewer"] > 0
    assert summary["pairs_with_fewer"] == sum(len(pair.negatives) < 4 for pair in pairs)
    assert sum(summary["pairs_by_negatives"].values()) == 48


def test_scores_obey_the_margin(tmp_path: Path) -> None:
    """Computed here from the texts again, by the model alone."""
    pairs, _ = mined(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out", margin=0.08, shard_size=9)
    encoder = hash_model().load()
    checked = 0
    for pair in pairs:
        texts = [f"{title} {text}" for title, text in zip(pair.negative_titles, pair.negatives, strict=True)]
        vectors = encoder.embed([f"{pair.title} {pair.positive}", *texts], "passage", 512)
        scores = vectors @ encoder.embed([pair.query], "query", 64)[0]
        assert all(score <= scores[0] - 0.08 + 1e-6 for score in scores[1:])
        checked += len(texts)
    assert checked > 50


def test_a_finished_mining_is_not_done_again_and_a_change_only_where_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out"
    searches: list[int] = []
    search = lists_module.search
    monkeypatch.setattr(lists_module, "search", lambda *args: searches.append(1) or search(*args))
    first, _ = mined(data, out, window=20)
    assert len(searches) == 3
    shutil.rmtree(out / "pairs")
    assert mined(data, out, window=20)[0] == first and len(searches) == 3
    mined(data, out, window=20, negatives=2, margin=0.05)
    assert len(searches) == 3
    mined(data, out, window=20, ranks=(1, 12))
    assert len(searches) == 6
    data.write_text(data.read_text().replace("number 3.", "number three."))
    mined(data, out, window=20, ranks=(1, 12))
    assert len(searches) == 9


def test_a_damaged_list_is_made_again(tmp_path: Path) -> None:
    data, out = write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out"
    first, _ = mined(data, out, margin=0.05, ranks=(1, 3))
    for name in ("lists/dense-00000.trec", "lists/scores-00000.trec", "chosen/part-00000.jsonl.zst"):
        content = bytearray((out / "work" / name).read_bytes())
        content[len(content) // 2] ^= 1
        (out / "work" / name).write_bytes(bytes(content))
        assert mined(data, out, margin=0.05, ranks=(1, 3))[0] == first


def test_an_error_amid_the_work_leaves_no_pairs_and_the_next_time_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out"
    search, done = lists_module.search, []

    def breaking(*args: object) -> object:
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return search(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(lists_module, "search", breaking)
    with pytest.raises(KeyboardInterrupt):
        mined(data, out, window=12)
    assert not (out / "pairs").exists() and not (out / "summary.json").exists()
    pairs, _ = mined(data, out, window=12)
    assert len(done) == 5  # two before, the one that broke, and the last two
    assert pairs == mined(data, tmp_path / "other", window=12)[0]


KILLED = """
import sys
from pathlib import Path
from made_pool import mined
mined(Path(sys.argv[1]), Path(sys.argv[2]), window=1, margin=0.01)
"""


def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    data, out = write_pairs(tmp_path / "pairs.jsonl", 24), tmp_path / "out"
    folders = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    for number in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(data), str(out)], env={**os.environ, "PYTHONPATH": folders}
        )
        lists, before = out / "work" / "lists", len(list((out / "work").rglob("*.trec")))
        deadline = time.monotonic() + 60
        while len(list(lists.glob("*.trec"))) < before + 5 * (number + 1) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "pairs").exists()
    assert mined(data, out, window=1, margin=0.01)[0] == mined(data, tmp_path / "other", window=1, margin=0.01)[0]


def test_processes_share_the_encoding(tmp_path: Path) -> None:
    from largede.retrieval.processes import Process

    data, out = write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "out"
    job = MineJob(open_source([data], "train"), hash_model(), out, MineSettings(ranks=(1, 20), shard_size=10))
    first, second = (Mining(job, Process(rank, 2)) for rank in range(2))
    first.make_pool()
    assert second.make_pool() == ""
    assert second.encode() == "20 passages embedded by process 1"
    assert mine(job, Process(0, 2), say=lambda line: None).embeddings.rows == 48


@pytest.fixture(scope="module")
def bm25_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("bm25")


def test_both_lists_give_and_the_margin_holds_for_what_bm25_found(bm25_run: Path) -> None:
    data = collection(bm25_run / "data", documents=60, queries=12)
    said: list[str] = []
    settings = MineSettings(("dense", "bm25"), ranks=(1, 15), negatives=6, margin=0.05, window=10)
    mine(MineJob(open_source([data], "train"), hash_model(), bm25_run / "out", settings), say=said.append)
    pairs, summary = mined(data, bm25_run / "out", lists=("dense", "bm25"), ranks=(1, 15), negatives=6, margin=0.05)
    taken = summary["taken_from"]
    assert taken["dense"] > 0 and taken["bm25"] > 0
    assert any(line.startswith("left out: ") and "too close to the positive" in line for line in said)
    encoder = hash_model().load()
    for pair in pairs:
        contents = [f"{pair.title} {pair.positive}"]
        contents += [f"{title} {text}" for title, text in zip(pair.negative_titles, pair.negatives, strict=True)]
        scores = encoder.embed(contents, "passage", 512) @ encoder.embed([pair.query], "query", 64)[0]
        assert all(score <= scores[0] - 0.05 + 1e-6 for score in scores[1:])
