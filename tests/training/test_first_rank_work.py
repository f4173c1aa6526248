"""Rank 0 does no work between two collectives that grows: others wait for it meanwhile, up to the group's time-out."""

import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from batches_for_tests import small_recipe
from made_world import MadeWorld
from ranks import run_on_ranks

from largede.config.recipe import Recipe
from largede.training.liveness.activity import activity
from largede.training.trainer import Trainer

FILE_EVENTS = frozenset(
    ["open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "os.truncate"]
)
PROGRAMS = "subprocess.Popen"
MOST_FILE_OPERATIONS = 60
MOST_PROGRAMS = 5
STEPS = 6


def recipe_for(world: MadeWorld, folder: Path, steps: int) -> Recipe:
    return small_recipe(
        folder,
        3,
        model__tokenizer=str(world.vocabulary),
        data__shards=str(world.shards),
        data__lanes=2,
        batch__queries=8,
        batch__chunk_tokens=120,
        run__out=str(folder / f"run-{steps}"),
        run__steps=steps,
        run__log_every=1,
        run__checkpoint_every=2,
        run__keep_checkpoints=2,
        run__dry_run=False,
    )


class FileWork:
    """Counts what the step's thread asks of the file system between one collective and the next."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.between: Counter[int] = Counter()
        self.what: dict[int, list[str]] = {}
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if event != PROGRAMS and not (event in FILE_EVENTS and self._is_of_run(args[0])):
            return
        if threading.current_thread() is not threading.main_thread() or not activity.calls:
            return
        number = activity.calls[-1].number
        self.between[number] += 1
        self.what.setdefault(number, []).append(f"{activity.phase}: {event} {str(args[0])[-60:]}")

    def _is_of_run(self, path: object) -> bool:
        # Modules being imported are not the run's; a name without a folder is a file of a tree being removed.
        return isinstance(path, str) and (path.startswith(self.folder) or not path.startswith("/"))

    def take(self) -> tuple[int, list[str]]:
        """The most that was done between two collectives since the last taking, and what that was."""
        number, most = max(self.between.items(), key=lambda item: item[1], default=(0, 0))
        found = most, self.what.get(number, [])
        self.between.clear()
        self.what.clear()
        return found


def work_between_collectives(folder: str, world: MadeWorld) -> dict[str, tuple[int, list[str]]]:
    work = FileWork(folder)
    found = {}
    trainer = Trainer(recipe_for(world, Path(folder), STEPS), lambda line: None)
    found["begin"] = work.take()
    trainer.run()
    found["run"] = work.take()
    trainer.engine.destroy()
    dist.barrier()
    resumed = recipe_for(world, Path(folder), STEPS)
    Trainer(resumed, lambda line: None).engine.destroy()
    found["resume"] = work.take()
    return found


@pytest.fixture(scope="module")
def answers(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[int, list[str]]]]:
    folder = tmp_path_factory.mktemp("work")
    return run_on_ranks(2, work_between_collectives, folder, str(folder), world)


def test_the_first_rank_does_a_bounded_amount_of_file_work_between_two_collectives(
    answers: list[dict[str, tuple[int, list[str]]]],
) -> None:
    """Under a pause of 1 s in each of these, the others would wait a minute, not up to the time-out.

    The counts include another checkpoint's removal, so they would also show work that grows with what a run has kept.
    """
    for what, (most, operations) in answers[0].items():
        assert most <= MOST_FILE_OPERATIONS, f"{what}: {most} operations:\n" + "\n".join(operations)
        assert sum(PROGRAMS in line for line in operations) <= MOST_PROGRAMS, operations


def test_steps_without_a_checkpoint_ask_little_of_the_file_system(
    answers: list[dict[str, tuple[int, list[str]]]],
) -> None:
    """Rank 1 writes its slices and reads its data, and that is all."""
    most, operations = answers[1]["run"]
    assert most <= 8, operations
