"""Whatever moment a run is killed at, it goes on as if it had not been."""

import os
import random
import signal
from pathlib import Path

import pytest
from killing import (
    PATIENCE_S,
    WORLD,
    Hit,
    curve,
    end_of,
    kill_exports,
    recipe_to_kill,
    refuse_leftovers,
    run_through,
    running,
    survive,
    wait_until,
)
from made_world import MadeWorld
from ranks import start_server

from largede.config.recipe import Recipe
from largede.training.run_life import EXIT_SAVED_ON_SIGNAL

STEPS = 14


@pytest.fixture(scope="module")
def killed(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Hit]]:
    """A run in one go, and one that is killed four times: all its ranks, and one of them."""
    folder = tmp_path_factory.mktemp("kills")
    start_server()
    assert run_through(recipe_to_kill(world, folder, "through", STEPS)) == [0] * WORLD
    hits = survive(recipe_to_kill(world, folder, "killed", STEPS), ["all", "one", "one", "all"], random.Random(3))
    return folder, hits


def test_a_killed_run_has_the_curve_and_the_end_of_one_that_was_not(killed: tuple[Path, list[Hit]]) -> None:
    folder, hits = killed
    print(hits)
    assert len(hits) >= 3
    assert curve(folder / "killed") == curve(folder / "through")
    assert end_of(folder / "killed", STEPS) == end_of(folder / "through", STEPS)


def test_ranks_end_by_themselves_when_one_is_killed(killed: tuple[Path, list[Hit]]) -> None:
    waits = [hit.others_ended_s for hit in killed[1] if hit.others_ended_s is not None]
    assert waits and max(waits) < 30


def test_nothing_of_the_kills_is_left_over(killed: tuple[Path, list[Hit]]) -> None:
    refuse_leftovers(killed[0] / "killed", STEPS)


def test_a_killed_export_leaves_nothing_under_its_name(killed: tuple[Path, list[Hit]]) -> None:
    folder = killed[0]
    left = kill_exports(folder / "through" / "checkpoints" / f"step-{STEPS:08d}", folder, 2, random.Random(1))
    assert set(left) <= {"nothing", "whole"}


def signalled(recipe: Recipe, phase: str, number: int, ranks_told: int) -> list[int]:
    """The exit status of each rank, when some were signalled while rank 0 was in a phase."""
    with running(recipe) as (ranks, board):
        wait_until(lambda: phase in board.phase(0) or ranks[0].exitcode is not None, phase)
        for process in ranks[:ranks_told]:
            os.kill(process.pid, number)
        for process in ranks:
            process.join(PATIENCE_S)
        return [process.exitcode for process in ranks]


def test_a_signal_while_loading_and_one_while_a_thread_writes(world: MadeWorld, killed: tuple[Path, list[Hit]]) -> None:
    """Leave with the status that asks to be started again, having lost nothing."""
    folder = killed[0]
    recipe = recipe_to_kill(world, folder, "signalled", STEPS)
    out, told = folder / "signalled", [EXIT_SAVED_ON_SIGNAL] * WORLD
    assert signalled(recipe, "loading", signal.SIGUSR1, WORLD) == told
    assert not list(out.glob("checkpoints/step-*"))
    assert signalled(recipe, "writing", signal.SIGTERM, 1) == told
    saved = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert len([name for name in saved if name.startswith("step-")]) == 2, "the one being written, and one more"
    assert not [name for name in saved if name.startswith(".")]
    assert run_through(recipe) == [0] * WORLD
    assert curve(out) == curve(folder / "through")
    assert end_of(out, STEPS) == end_of(folder / "through", STEPS)
