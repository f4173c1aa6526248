"""Which checkpoints stay."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from largede.errors import NoRoomError
from largede.files import sha256_file
from largede.runs.claims import Claim
from largede.runs.evaluated import Evaluated, watchers_folder, write_record
from largede.runs.files import READERS
from largede.training.checkpoints.retention import (
    Keep,
    clear_leftovers,
    discard_after,
    names_to_remove,
    newest_is,
    reading,
    remove_all,
    retire,
    step_of,
)

STEPS = st.lists(st.integers(1, 60), unique=True, min_size=1)
KEEPS = st.builds(Keep, st.integers(1, 5), st.none() | st.integers(1, 20), st.integers(0, 4), st.integers(0, 4))
VALUES = st.dictionaries(st.integers(1, 60), st.sampled_from([0.1, 0.2, 0.3]))


def name_of(step: int) -> str:
    return f"step-{step:08d}"


@given(STEPS, KEEPS, VALUES, st.sets(st.integers(1, 60)), st.booleans(), st.data())
def test_what_goes_is_neither_new_nor_best_nor_a_multiple_nor_held_nor_waited_for(
    steps: list[int], keep: Keep, values: dict[int, float], held: set[int], is_watched: bool, data: st.DataObject
) -> None:
    written = data.draw(st.sampled_from(steps))
    judged = {name_of(step): value for step, value in values.items()}
    names = [name_of(step) for step in steps]
    reading = {name_of(step) for step in held}
    going = names_to_remove(names, name_of(written), keep, judged, reading, is_watched=is_watched)
    gone = {step_of(name) for name in going}
    counted = sorted(step for step in steps if step <= written)
    better = sorted((-values[step], step) for step in counted if step in values)
    must_stay = {written, *counted[-keep.newest :], *held, *(step for _, step in better[: keep.best])}
    must_stay |= {step for step in counted if keep.every and step % keep.every == 0}
    waiting = [step for step in counted if step not in must_stay and step not in values] if is_watched else []
    must_stay |= set(sorted(waiting, reverse=True)[: keep.unevaluated])
    assert len(going) == len(gone) and gone == set(counted) - must_stay


def test_newer_ones_that_were_passed_over_are_left_alone() -> None:
    assert names_to_remove(map(name_of, (2, 4, 6, 8)), name_of(6), Keep(1), {}) == [name_of(2), name_of(4)]


def made_run(folder: Path, steps: list[int], values: dict[int, float]) -> Path:
    checkpoints = folder / "checkpoints"
    (folder / "evaluations").mkdir(parents=True)
    for step in steps:
        (checkpoints / name_of(step)).mkdir(parents=True)
        (checkpoints / name_of(step) / "state.json").write_text(str(step))
    for step, value in values.items():
        record_of(folder, step, value)
    return checkpoints


def record_of(run: Path, step: int, value: float) -> None:
    """As an evaluation of the checkpoint that is there now leaves it."""
    state = run / "checkpoints" / name_of(step) / "state.json"
    made = sha256_file(state) if state.is_file() else "of one that is gone"
    write_record(run, Evaluated(step, name_of(step), "ndcg@10", value, {}, made, 0.0))


def names_in(checkpoints: Path) -> list[str]:
    return sorted(path.name for path in checkpoints.iterdir())


def test_files_of_the_evaluation_say_what_is_best_and_what_is_held(tmp_path: Path) -> None:
    checkpoints = made_run(tmp_path, [1, 2, 3, 4, 5, 6], {1: 0.5, 2: 0.7, 3: 0.7, 9: 0.9})
    (tmp_path / "evaluations" / f"{name_of(4)}.json").write_text("{ half")
    (tmp_path / "evaluations" / f"{name_of(1)}.hold").touch()
    stale = tmp_path / "evaluations" / f"{name_of(5)}.hold"
    stale.touch()
    os.utime(stale, (time.time() - 700, time.time() - 700))
    doomed = retire(checkpoints, name_of(6), Keep(1, None, 1))
    assert [name for name in names_in(checkpoints) if name.startswith("step-")] == [name_of(s) for s in (1, 2, 6)]
    remove_all(doomed)
    assert names_in(checkpoints) == [name_of(s) for s in (1, 2, 6)]


def steps_left(checkpoints: Path, written: int, keep: Keep) -> list[int]:
    remove_all(retire(checkpoints, name_of(written), keep))
    return [step_of(name) for name in names_in(checkpoints)]


def test_a_step_that_was_trained_again_is_not_kept_for_the_value_it_had_before(tmp_path: Path) -> None:
    checkpoints = made_run(tmp_path, [1, 2, 3], {1: 0.9, 2: 0.5})
    (checkpoints / name_of(1) / "state.json").write_text("trained again")
    assert steps_left(checkpoints, 3, Keep(1, None, 1)) == [2, 3]


def test_what_a_living_watch_has_not_evaluated_waits_and_the_newest_of_it_only(tmp_path: Path) -> None:
    checkpoints = made_run(tmp_path, [1, 2, 3, 4, 5, 6], {3: 0.5})
    watcher = Claim(watchers_folder(tmp_path) / "one.json")
    watcher.take()
    keep = Keep(1, unevaluated=2)
    assert steps_left(checkpoints, 6, keep) == [4, 5, 6]
    record_of(tmp_path, 4, 0.1)
    assert steps_left(checkpoints, 6, keep) == [5, 6]
    watcher.release()
    assert steps_left(checkpoints, 6, keep) == [6]


def test_a_watch_that_was_killed_keeps_nothing(tmp_path: Path) -> None:
    checkpoints = made_run(tmp_path, [1, 2], {})
    claim = Claim(watchers_folder(tmp_path) / "one.json")
    claim.take()
    left = claim.path.read_text()
    claim.release()
    claim.path.write_text(left.replace('"process_started": "', '"process_started": "another time than '))
    assert steps_left(checkpoints, 2, Keep(1, unevaluated=5)) == [2]


def test_a_checkpoint_stays_while_a_living_process_reads_it(tmp_path: Path) -> None:
    checkpoints = made_run(tmp_path, [1, 2, 3], {})
    with reading(checkpoints / name_of(1)), reading(checkpoints / name_of(1)):
        [one, _] = (tmp_path / READERS).iterdir()
        killed = one.read_text().replace('"process_started": "', '"process_started": "another time than ')
        (tmp_path / READERS / f"{name_of(2)}.killed.json").write_text(killed)
        assert steps_left(checkpoints, 3, Keep(1)) == [1, 3]
        with reading(checkpoints / name_of(3)):
            assert len(list((tmp_path / READERS).iterdir())) == 3, "claims of killed readers are removed"
    assert not (tmp_path / READERS).exists()
    assert steps_left(checkpoints, 3, Keep(1)) == [3]


def test_what_killed_runs_left_is_cleared_and_a_replaced_checkpoint_gets_its_name_back(tmp_path: Path) -> None:
    checkpoints = made_run(tmp_path, [2], {})
    for left in (f".{name_of(4)}.writing", f".{name_of(1)}.removed", f".{name_of(2)}.replaced"):
        (checkpoints / left).mkdir()
    (checkpoints / f".{name_of(3)}.replaced").mkdir()
    (checkpoints / f".{name_of(3)}.replaced" / "state.json").write_text("3")
    clear_leftovers(checkpoints)
    assert names_in(checkpoints) == [name_of(2), name_of(3)]
    assert (checkpoints / name_of(2) / "state.json").read_text() == "2"


def test_a_full_disk_is_noticed_before_a_checkpoint_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that has its name is saved: nothing that needs room comes after it."""
    (tmp_path / "latest.json").write_text("before")
    monkeypatch.setattr(os, "fsync", raise_no_room)
    has_name = False
    with pytest.raises(NoRoomError), newest_is(tmp_path / name_of(2)):
        has_name = True
    assert not has_name and (tmp_path / "latest.json").read_text() == "before"
    checkpoints = made_run(tmp_path / "run", [2, 4], {})
    (checkpoints / "latest.json").write_text("step 4")
    assert len(discard_after(checkpoints / name_of(2))) == 1
    assert not (checkpoints / "latest.json").exists(), "it would name what is gone"


def raise_no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_was_saved_after_a_checkpoint_goes_with_its_evaluations_and_the_newest_is_named(tmp_path: Path) -> None:
    checkpoints = made_run(tmp_path, [2, 4, 6], {2: 0.1, 4: 0.2, 6: 0.3})
    doomed = discard_after(checkpoints / name_of(2))
    assert json.loads((checkpoints / "latest.json").read_text()) == {"checkpoint": name_of(2)}
    assert len(doomed) == 2 and sum((folder / "state.json").is_file() for folder in doomed) == 2
    remove_all(doomed)
    assert names_in(checkpoints) == ["latest.json", name_of(2)]
    assert names_in(tmp_path / "evaluations") == [f"{name_of(2)}.json"]
