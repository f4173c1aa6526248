"""A run whose disk is full or may not be written, and one that must not unpickle anything."""

import contextlib
import json
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import recipe_to_kill
from made_world import MadeWorld
from ranks import run_on_ranks

from largede.config.load import with_settings
from largede.config.recipe import Recipe
from largede.errors import LargedeError
from largede.files import write_json
from largede.training.export import export_checkpoint
from largede.training.liveness.watchdog import end_watch
from largede.training.trainer import Trainer


class Unpickled(BaseException):
    """Raised where anything is unpickled; nothing that handles errors may catch it."""


@contextlib.contextmanager
def nothing_unpickles() -> Iterator[None]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Unpickled

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
            patch.setattr(owner, name, refuse)
        yield


def trained(recipe: Recipe) -> list[str]:
    lines: list[str] = []
    trainer = Trainer(recipe, lines.append)
    try:
        trainer.run()
    finally:
        trainer.engine.destroy()
        end_watch()  # which keeps files open
    return lines


def goes_on_without_pickles(world: MadeWorld, folder: Path) -> dict[str, Any]:
    """Save as a run of four steps would, then load, go on and export; and see that unpickling would be noticed."""
    recipe = recipe_to_kill(world, folder, "run", 4)
    trained(recipe)
    state = folder / "run" / "checkpoints" / "step-00000004" / "state.json"
    values = json.loads(state.read_text(encoding="utf-8"))
    values["recipe"]["run"]["steps"] = 6
    del values["checksum"]
    write_json(state, values)
    torch.save({"a": torch.zeros(1)}, folder / "pickled")
    with nothing_unpickles():
        noticed = False
        try:
            torch.load(folder / "pickled")
        except Unpickled:
            noticed = True
        lines = trained(recipe_to_kill(world, folder, "run", 6))
        export_checkpoint(folder / "run", folder / "exported")
    return {"noticed": noticed, "lines": lines, "exported": (folder / "exported").is_dir()}


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(512))
    return ballast


def run_on_a_full_disk(world: MadeWorld, folder: Path, disk: Path, when: str) -> dict[str, Any]:
    """The disk is full from after step 3 to after step 6: step 4 and 6 would save, and each step is logged."""
    recipe = with_settings(recipe_to_kill(world, folder, "x", 8), run__when_disk_full=when, run__out=str(disk / when))
    lines: list[str] = []
    trainer = Trainer(recipe, lines.append)
    original = trainer.train_step

    def train_step() -> Any:
        if trainer.steps_done == 3:
            fill(disk)
        if trainer.steps_done == 6:
            (disk / "ballast").unlink()
        return original()

    trainer.train_step = train_step  # type: ignore[method-assign]
    said = "no error"
    try:
        trainer.run()
    except LargedeError as error:
        said = f"{type(error).__name__}: {error}"
    trainer.engine.destroy()
    end_watch()
    (disk / "ballast").unlink(missing_ok=True)
    figures = (disk / when / "figures.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "said": said,
        "lines": lines,
        "steps": [json.loads(line)["step"] for line in figures],
        "checkpoints": sorted(path.name for path in (disk / when / "checkpoints").iterdir()),
    }


def refused(recipe: Recipe) -> str:
    try:
        trained(recipe)
    except LargedeError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def story(folder: str, world: MadeWorld, disk: str | None) -> dict[str, Any]:
    path = Path(folder)
    answers: dict[str, Any] = {"pickles": goes_on_without_pickles(world, path)}
    if disk:
        place = Path(disk)
        answers |= {when: run_on_a_full_disk(world, path, place, when) for when in ("go_on", "stop")}
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        answers["read only"] = refused(with_settings(recipe_to_kill(world, path, "x", 8), run__out=str(place / "new")))
    return answers


@pytest.fixture(scope="module")
def answers(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder, disk = tmp_path_factory.mktemp("places"), tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(disk)], capture_output=True)
    try:
        place = None if mounted.returncode else str(disk)
        yield run_on_ranks(1, story, folder, str(folder), world, place)[0]
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", str(disk)], check=True)


def of_disk(answers: dict[str, Any], what: str) -> Any:
    if what not in answers:
        pytest.skip("this user may not mount a small disk")
    return answers[what]


def test_going_on_and_exporting_unpickle_nothing(answers: dict[str, Any]) -> None:
    found = answers["pickles"]
    assert found["noticed"] and found["exported"]
    assert any("continuing from" in line and "step-00000004" in line for line in found["lines"])


def test_a_run_told_to_go_on_outlives_a_full_disk_and_says_what_it_lost(answers: dict[str, Any]) -> None:
    found = of_disk(answers, "go_on")
    assert found["said"] == "no error"
    unsaved = [line for line in found["lines"] if "is not saved" in line]
    assert [line.split(":")[0] for line in unsaved] == ["step 4", "step 6"]
    assert len([line for line in found["lines"] if "figures are lost" in line]) == 1
    assert found["checkpoints"] == ["latest.json", "step-00000002", "step-00000008"]
    # Whole lines only: those of the full disk are missing, up to what fitted into the last page.
    assert found["steps"][:3] == [1, 2, 3] and found["steps"][-2:] == [7, 8] and 6 not in found["steps"]


def test_a_run_told_to_stop_ends_with_the_checkpoint_before(answers: dict[str, Any]) -> None:
    found = of_disk(answers, "stop")
    assert found["said"].startswith("NoRoomError: no room left to write") and "to mend:" in found["said"]
    assert found["checkpoints"] == ["latest.json", "step-00000002"]


def test_a_folder_that_may_not_be_written_is_refused_before_any_step(answers: dict[str, Any]) -> None:
    said = of_disk(answers, "read only")
    assert said.startswith("MachineError: ") and "Read-only file system" in said and "to mend:" in said
