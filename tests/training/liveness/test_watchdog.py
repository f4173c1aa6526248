"""A rank that hangs, stops, dies or miscounts is named, with everybody's stacks; honest long work is left alone."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from made_world import MadeWorld

from largede.config.recipe import GuardConfig
from largede.runs.table import listed
from largede.training.engine import UNWATCHED_TIMEOUT, group_timeout
from largede.training.liveness import watchdog
from largede.training.liveness.activity import activity
from largede.training.liveness.hang import named
from largede.training.liveness.heartbeat import Place, heartbeat_of, this_place, write_heartbeat
from largede.training.liveness.watchdog import EXIT_HUNG, Watchdog

RANKS_FILE = Path(__file__).with_name("hanging_ranks.py")


@dataclass(frozen=True)
class Group:
    folder: Path
    statuses: list[int]

    @property
    def said(self) -> str:
        return "\n".join(path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("rank-*.out")))

    @property
    def hang(self) -> Path:
        [hang] = (self.folder / "run" / "hangs").glob("*-step-*")
        return hang

    def stacks(self, rank: int) -> str:
        return (self.hang / f"rank-{rank:05d}.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def groups(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Group]:
    folder = tmp_path_factory.mktemp("hangs")
    data = {"model__tokenizer": str(world.vocabulary), "data__shards": str(world.shards)}
    root = RANKS_FILE.parents[3]
    paths = os.pathsep.join(map(str, (root, root / "tests", root / "tests" / "training")))
    subprocess.run(
        [sys.executable, str(RANKS_FILE), str(folder), json.dumps(data)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=240,
    )
    statuses = json.loads((folder / "statuses.json").read_text(encoding="utf-8"))
    return {name: Group(folder / name, found) for name, found in statuses.items()}


def test_a_rank_that_sleeps_in_its_data_reader_is_named_with_its_samples(groups: dict[str, Group]) -> None:
    group = groups["reader sleeps"]
    assert group.statuses == [EXIT_HUNG] * 3
    verdict = (group.hang / "verdict.txt").read_text(encoding="utf-8")
    assert "rank 1 (" in verdict and "has been in step 2, phase waiting for data, for" in verdict
    assert "is in no collective; the last batch it read, 0, begins with q" in verdict
    assert "ranks 0, 2 wait in all_reduce #" in verdict and "(8 bytes) of step 2, phase stepping" in verdict
    assert verdict.strip() in group.said and group.said.count("HANG at step 2") == 1
    assert "in own_batch" in group.stacks(1) and "in collective: none" in group.stacks(1)
    assert "in any_over_ranks" in group.stacks(2) and "in collective: all_reduce #" in group.stacks(2)
    assert "lost the others" not in group.said, "only the verdict is said, not what follows from it"


def test_a_rank_in_an_endless_loop_is_named(groups: dict[str, Group]) -> None:
    group = groups["spins"]
    assert group.statuses == [EXIT_HUNG] * 3
    assert "phase stepping, for" in group.said and "question-1-0, question-1-1, question-1-2" in group.said
    assert "in spins" in group.stacks(1) and "question-1-2" in group.stacks(1)


def test_a_stopped_first_rank_is_named_by_the_next_one(groups: dict[str, Group]) -> None:
    group = groups["is stopped"]
    assert group.statuses == [-9, EXIT_HUNG, EXIT_HUNG], "the stopped one cannot leave by itself"
    assert "is stopped; last heard of at" in group.said and "ranks 1, 2 wait in all_reduce #2" in group.said
    assert not (group.hang / "rank-00000.txt").exists()


def test_a_rank_that_holds_the_interpreter_still_leaves_its_stacks(groups: dict[str, Group]) -> None:
    group = groups["holds the interpreter"]
    assert group.statuses == [EXIT_HUNG, EXIT_HUNG, -9]
    assert "rank 2 (" in group.said and "has not been heard of since" in group.said
    assert "in holds_the_interpreter" in group.stacks(2) and "rank-00002.txt" in group.said


def test_a_rank_that_calls_one_collective_more_is_named_with_it(groups: dict[str, Group]) -> None:
    group = groups["calls once more"]
    assert group.statuses == [EXIT_HUNG] * 3
    assert "the ranks' collectives differ from #2 on: rank 1 (" in group.said
    assert "called all_gather (12 bytes); ranks 0, 2 called all_reduce (8 bytes)" in group.said


def test_a_killed_rank_is_named_and_the_others_leave_with_the_same_status(groups: dict[str, Group]) -> None:
    group = groups["is killed"]
    assert group.statuses == [EXIT_HUNG, -9, EXIT_HUNG]
    assert "rank 0 lost the others in all_reduce #" in group.said
    assert "has ended; last heard of at" in group.said and "rank 1 (" in group.said


def test_a_rank_that_leaves_with_a_defect_is_quoted_by_the_others(groups: dict[str, Group]) -> None:
    group = groups["leaves"]
    assert group.statuses == [EXIT_HUNG, 1, EXIT_HUNG]
    assert group.said.count("has left: ValueError: a defect on one rank") == 2


@pytest.mark.parametrize("name", ["works long", "saves long", "is suspended"])
def test_honest_long_work_does_not_trip_the_watch(name: str, groups: dict[str, Group]) -> None:
    group = groups[name]
    assert group.statuses == [0, 0, 0] and "HANG" not in group.said
    assert not list((group.folder / "run").glob("hangs/*-step-*"))


@pytest.mark.parametrize(
    ("name", "state", "words"),
    [
        ("is killed", "failed", ["rank 1 (", "has ended; last heard of at"]),
        ("leaves", "failed", ["rank 1 (", "has left: ValueError: a defect on one rank"]),
        ("spins", "died", ["no rank has made progress for", "rank 1 ("]),
        ("reader sleeps", "died", ["no rank has made progress for", "rank 1 (", "phase waiting for data"]),
    ],
)
def test_the_list_of_runs_tells_it_in_the_words_of_the_watch(
    name: str, state: str, words: list[str], groups: dict[str, Group]
) -> None:
    found = listed(groups[name].folder / "run")
    assert found.state == state
    assert all(word in found.why for word in words) and "\n" not in found.why, found.why


def test_a_signal_writes_the_stacks_and_the_run_goes_on(groups: dict[str, Group]) -> None:
    [asked] = (groups["works long"].folder / "run" / "hangs").rglob("rank-*.txt")
    assert asked.name == "rank-00001.txt" and "in works_long" in asked.read_text(encoding="utf-8")


def test_empty_files_of_a_killed_part_with_more_ranks_are_removed(tmp_path: Path) -> None:
    def left() -> list[str]:
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())

    kept = {"hangs/asked/rank-00002.txt": "stacks that were asked for", "hangs/20261121-step-2/rank-00003.txt": ""}
    beats = {"heartbeats/rank-00003.stacks": "", "heartbeats/rank-00003.json": "{}"}
    for name, text in {**kept, "hangs/asked/rank-00003.txt": "", **beats}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    watch = Watchdog(tmp_path, GuardConfig(), 0, 1)
    watch.start()
    watch.close()
    assert left() == sorted(kept) and not (tmp_path / "heartbeats").exists()


class Ended(Exception):
    """In place of the end of this process."""


@pytest.fixture
def verdict_amid_the_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watchdog:
    """Rank 1's watch. Rank 0 is over its time; it gives the verdict and ends just when rank 1 looks at its process."""
    first, second = (Watchdog(tmp_path, GuardConfig(), rank, 2, lambda text: None) for rank in (0, 1))
    first.beats.mkdir()
    beat = replace(heartbeat_of(activity, this_place(0), 1, is_over=True), hang="a-hang")
    write_heartbeat(first.beats, beat)
    second.hang = "a-hang"

    def ends(place: Place, here: Place) -> str:
        write_heartbeat(first.beats, replace(beat, beat=2, has_verdict=True))
        return "ended"

    def end(status: int) -> None:
        raise Ended(status)

    monkeypatch.setattr(watchdog, "process_state", ends)
    monkeypatch.setattr(os, "_exit", end)
    return second


def test_a_rank_that_gave_the_verdict_and_ended_is_not_taken_for_the_cause(verdict_amid_the_look: Watchdog) -> None:
    with pytest.raises(Ended, match="76"):
        verdict_amid_the_look._look_around()
    assert not verdict_amid_the_look.has_verdict
    assert not (verdict_amid_the_look.hangs / "a-hang" / "verdict.txt").exists()


def test_a_rank_whose_collective_failed_by_the_verdict_says_nothing_else(verdict_amid_the_look: Watchdog) -> None:
    with pytest.raises(Ended, match="76"):
        verdict_amid_the_look.explain_loss()


def test_a_hang_that_is_only_reported_may_end_well(groups: dict[str, Group]) -> None:
    group = groups["sleeps too long"]
    assert group.statuses == [0, 0, 0]
    assert group.said.count("HANG at step 2") == 1 and "the run goes on at step" in group.said
    assert "in sleeps_too_long" in group.stacks(1)


def test_a_run_that_ends_well_leaves_no_heartbeats(groups: dict[str, Group]) -> None:
    assert not (groups["saves long"].folder / "run" / "heartbeats").exists()
    assert not (groups["saves long"].folder / "run" / "hangs").exists()


def test_a_run_writes_its_ranks_times_with_its_figures(groups: dict[str, Group]) -> None:
    run = groups["reader sleeps"].folder / "run"
    [line] = (run / "figures.jsonl").read_text(encoding="utf-8").splitlines()
    figures = json.loads(line)
    for part in ("work", "collectives", "data", "saving"):
        least, median, most = (figures[f"ranks/{part}_s_{which}"] for which in ("min", "median", "max"))
        assert 0.0 <= least <= median <= most
    assert figures["ranks/collectives_s_max"] > 0.0 and figures["ranks/slowest_rank"] in (0.0, 1.0, 2.0)
    assert figures["data/damaged_blocks"] == 0.0
    table = json.loads((run / "ranks.json").read_text(encoding="utf-8"))
    assert [row["rank"] for row in table["seconds_per_step"]] == [0, 1, 2]


def test_the_process_group_gives_up_after_the_watch_has_spoken() -> None:
    watched = GuardConfig(hang_after_s=100.0)
    assert group_timeout(watched).total_seconds() == 1200
    assert group_timeout(GuardConfig(hang_after_s=None)) == UNWATCHED_TIMEOUT


def test_many_ranks_are_named_in_few_words() -> None:
    assert named([3]) == "rank 3"
    assert named([0, 2]) == "ranks 0, 2"
    assert named([*range(63), 64]) == "ranks 0 to 62, 64"
