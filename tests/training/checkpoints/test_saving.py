"""Saving while the run goes on gives the bytes of saving at rest; what goes wrong concerns all ranks alike."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from optimizer_ranks import made_engine, made_recipe, take_steps
from ranks import run_on_ranks

from largede.config.recipe import Recipe
from largede.errors import LargedeError, MachineError
from largede.files import sha256_file
from largede.training.checkpoints import background as saving
from largede.training.checkpoints.background import CheckpointSaver
from largede.training.checkpoints.state import StreamPlace, read_state, sound_checkpoints
from largede.training.checkpoints.write import save_checkpoint

NOWHERE = StreamPlace("none")
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "adafactor cut": (3, {}),
    "adafactor whole": (0, {}),
    "adamw cut": (2, {"optimizer__name": "adamw"}),
}


class Listener:
    """A saver that keeps what it says."""

    def __init__(self, engine: Any, recipe: Recipe, folder: Path, **run: Any) -> None:
        self.lines: list[str] = []
        recipe = replace(recipe, run=replace(recipe.run, **run))
        self.saver = CheckpointSaver(
            engine, recipe, folder, self.lines.append, lambda step, words: self.lines.append(words)
        )

    def save(self, step: int, **how: bool) -> None:
        self.saver.save(step, NOWHERE, now=how.get("now", False))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def equal_bytes(folder: Path, kind: str) -> dict[str, Any]:
    """Save at rest, then beside steps that change everything."""
    stage, settings = KINDS[kind]
    recipe = made_recipe(folder, stage, **settings)
    engine = made_engine(recipe)
    take_steps(engine, range(2))
    plain = read_state(save_checkpoint(engine, recipe, 2, folder / kind / "plain", NOWHERE))
    held = threading.Event()
    original = saving.write_files

    def write_when_told(*args: Any) -> Any:
        held.wait()
        return original(*args)

    listener = Listener(engine, recipe, folder / kind / "beside")
    saving.write_files = write_when_told
    try:
        listener.save(2)
        take_steps(engine, range(2, 4))
        listener.saver.publish_when_written()
        dist.barrier()
        before = names(folder / kind / "beside")
        dist.barrier()
        threading.Timer(0.2, held.set).start()
        listener.save(4)  # the second has to wait for the first
    finally:
        saving.write_files = original
    listener.saver.finish()
    beside = read_state(folder / kind / "beside" / "step-00000002")
    engine.destroy()
    return {"before": before, "plain": plain, "beside": beside, "lines": listener.lines}


def failing_writer(error: Exception) -> Any:
    original = saving.write_files

    def write_files(folder: Path, files: Any) -> Any:
        if dist.get_rank() == 1:
            raise error
        return original(folder, files)

    return write_files


def failures(folder: Path) -> dict[str, Any]:
    """The thread of rank 1 fails; with a full disk, and otherwise; in a run that goes on, and in one that stops."""
    recipe = made_recipe(folder, 3)
    engine = made_engine(recipe)
    answers: dict[str, Any] = {}
    original = saving.write_files
    for what, when, error in (
        ("full and stops", "stop", OSError(28, "No space left on device")),
        ("full and goes on", "go_on", OSError(28, "No space left on device")),
        ("broken", "go_on", OSError(5, "Input/output error")),
    ):
        place = folder / what
        listener = Listener(engine, recipe, place, when_disk_full=when)
        listener.save(1, now=True)
        saving.write_files = failing_writer(error)
        said = "no error"
        try:
            listener.save(2)
            listener.saver.finish()
        except LargedeError as problem:
            said = f"{type(problem).__name__}: {problem}"
        finally:
            saving.write_files = original
        dist.barrier()
        answers[what] = (said, names(place), list(listener.lines))
        dist.barrier()
    listener = Listener(engine, recipe, folder / "full and goes on", when_disk_full="go_on", keep_checkpoints=1)
    listener.save(3)
    listener.saver.finish()
    dist.barrier()
    answers["next time"] = names(folder / "full and goes on")
    engine.destroy()
    return answers


def small_disk(folder: Path, disk: Path) -> dict[str, Any]:
    """A disk with room for one checkpoint: the second is not saved, and a third is once there is room."""
    recipe = made_recipe(folder, 3)
    engine = made_engine(recipe)
    answers: dict[str, Any] = {}
    for is_async in (True, False):
        place = disk / str(is_async)
        listener = Listener(engine, recipe, place, when_disk_full="go_on", save_async=is_async, keep_checkpoints=5)
        for step in (1, 2):
            listener.save(step)
            listener.saver.finish()
        dist.barrier()
        answers[f"{is_async}"] = (names(place), list(listener.lines), [p.name for p, _ in sound_checkpoints(place)])
        try:
            listener.save(3, now=True)  # the last one must find room, whatever the recipe says
        except MachineError as error:
            answers[f"{is_async} last"] = f"{type(error).__name__}: {error}"
        dist.barrier()
        if dist.get_rank() == 0:
            subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        dist.barrier()
        listener.save(4)
        listener.saver.finish()
        dist.barrier()
        answers[f"{is_async} later"] = names(place)
        dist.barrier()
        if dist.get_rank() == 0:
            shutil.rmtree(place)
            subprocess.run(["mount", "-o", "remount,size=700k", str(disk)], check=True)
        dist.barrier()
    engine.destroy()
    return answers


def all_of_it(folder: str, disk: str | None) -> dict[str, Any]:
    path = Path(folder)
    answers: dict[str, Any] = {kind: equal_bytes(path, kind) for kind in KINDS}
    answers["failures"] = failures(path)
    answers["disk"] = small_disk(path, Path(disk)) if disk else None
    return answers


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """A real disk of 700 KiB, where this user may mount one."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "none", str(folder)], capture_output=True)
    yield None if mounted.returncode else str(folder)
    if not mounted.returncode:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, disk: str | None) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("saving")
    found = run_on_ranks(2, all_of_it, folder, str(folder), disk)
    assert found[0]["failures"].keys() == found[1]["failures"].keys()
    return {**found[0], "rank 1": found[1], "folder": folder}


@pytest.mark.parametrize("kind", KINDS)
def test_saving_beside_the_run_gives_the_bytes_of_saving_at_rest(kind: str, answers: dict[str, Any]) -> None:
    plain, beside = answers[kind]["plain"], answers[kind]["beside"]
    assert plain.files and plain == beside
    folder = answers["folder"] / kind / "beside" / "step-00000002"
    for name, facts in beside.files.items():
        assert sha256_file(folder / name) == facts["sha256"]


def test_a_checkpoint_has_no_name_before_all_of_it_is_written(answers: dict[str, Any]) -> None:
    assert answers["adafactor cut"]["before"] == [".step-00000002.writing"]


def test_a_second_save_waits_for_the_first_and_says_so(answers: dict[str, Any]) -> None:
    assert answers["adafactor cut"]["lines"] == ["step 4: waiting until the checkpoint of step 2 is written"]


def test_what_one_rank_cannot_write_is_no_checkpoint_for_all(answers: dict[str, Any]) -> None:
    for told in (answers, answers["rank 1"]):
        said, left, _ = told["failures"]["full and stops"]
        assert said.startswith("NoRoomError: ") and "No space left on device" in said
        assert left == ["latest.json", "step-00000001"]
        said, left, _ = told["failures"]["broken"]
        assert said.startswith("MachineError: rank 1: [Errno 5]"), "only a full disk is survived"
        assert left == ["latest.json", "step-00000001"]


def test_a_run_goes_on_with_a_full_disk_and_saves_the_next_one(answers: dict[str, Any]) -> None:
    said, left, lines = answers["failures"]["full and goes on"]
    assert said == "no error" and left == ["latest.json", "step-00000001"]
    [line] = lines
    assert line.startswith("warning: the checkpoint of step 2 is not saved: ") and line.endswith("going on without it")
    assert answers["failures"]["next time"] == ["latest.json", "step-00000003"]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_disk_that_is_really_full(is_async: bool, answers: dict[str, Any]) -> None:
    if answers["disk"] is None:
        pytest.skip("this user may not mount a small disk")
    left, [line], sound = answers["disk"][str(is_async)]
    assert left == ["latest.json", "step-00000001"] and sound == ["step-00000001"]
    assert "the checkpoint of step 2 is not saved" in line and "no" in line
    last = answers["disk"][f"{is_async} last"]
    assert last.startswith("NoRoomError") and "to mend:" in last
    assert answers["disk"][f"{is_async} later"] == ["latest.json", "step-00000001", "step-00000004"]


def damage(folder: str) -> dict[str, str]:
    """Hurt the newer of two checkpoints in every way; which one would be continued from, each time."""
    path = Path(folder)
    recipe = made_recipe(path, 3)
    engine = made_engine(recipe)
    run = path / "run"
    take_steps(engine, range(1))
    for step in (1, 2):
        save_checkpoint(engine, recipe, step, run, NOWHERE)
    newest, found = run / "step-00000002", {}
    for file in sorted(newest.iterdir()):
        whole = file.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 16
        hurts = {"cut": whole[:-2], "empty": b"", "flipped": bytes(flipped), "longer": whole + b" x"}
        for how, content in hurts.items():
            file.write_bytes(content)
            found[f"{file.name} {how}"] = continued_from(run)
        file.unlink()
        found[f"{file.name} missing"] = continued_from(run)
        file.mkdir()
        found[f"{file.name} a folder"] = continued_from(run)
        file.rmdir()
        file.write_bytes(whole)
    (run / "latest.json").write_text("garbage")
    (run / "step-00000003").mkdir()
    (run / "step-00000004").write_text("a file")
    found["all mended, others in the way"] = continued_from(run)
    engine.destroy()
    return found


def continued_from(run: Path) -> str:
    return next(iter(sound_checkpoints(run)))[0].name


def test_a_damaged_checkpoint_is_passed_over_whatever_is_damaged(tmp_path: Path) -> None:
    found = run_on_ranks(1, damage, tmp_path, str(tmp_path))[0]
    mended = found.pop("all mended, others in the way")
    assert mended == "step-00000002"
    assert len(found) == 6 * 4, sorted(found)
    assert {name for name, chosen in found.items() if chosen != "step-00000001"} == set()


def test_every_flipped_bit_of_the_state_is_seen(tmp_path: Path, answers: dict[str, Any]) -> None:
    """A number in it has no file whose checksum could differ: it has its own."""
    from largede.errors import CheckpointError

    source = answers["folder"] / "adafactor cut" / "plain" / "step-00000002"
    truth, content = read_state(source), (source / "state.json").read_bytes()
    unseen = []
    for place in range(len(content)):
        hurt = bytearray(content)
        hurt[place] ^= 1 << place % 8
        (tmp_path / "state.json").write_bytes(bytes(hurt))
        try:
            if read_state(tmp_path) != truth:
                unseen.append(place)
        except CheckpointError:
            pass
    assert not unseen
