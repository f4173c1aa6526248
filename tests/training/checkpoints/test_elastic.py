"""A run that is continued elsewhere takes the steps of the one that was not interrupted."""

from pathlib import Path

import pytest
from elastic_runs import PAIRS, RANKS, continue_all, losses, save_all
from made_world import MadeWorld
from ranks import run_on_ranks

TOLERANCE = 1e-5
"""Of a loss between 2 and 4: another number of ranks adds the same float32 numbers in another order."""


@pytest.fixture(scope="module")
def runs(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    for what in (save_all, continue_all):
        for ranks in RANKS:
            meeting = folder / f"{what.__name__} {ranks}"
            meeting.mkdir()
            run_on_ranks(ranks, what, meeting, str(folder), world)
    return folder


def test_the_runs_cover_every_pair_of_ranks_and_of_stages() -> None:
    for optimizer in ("adafactor", "adamw"):
        pairs = [(before, after) for before, after in PAIRS if before.optimizer == optimizer]
        assert len({(before.ranks, after.ranks) for before, after in pairs}) == 16
        assert len({(before.stage, after.stage) for before, after in pairs}) == 16


@pytest.mark.slow
def test_twenty_steps_on_other_ranks_and_stages_are_those_of_the_uninterrupted_run(runs: Path) -> None:
    worst = {}
    for before, after in PAIRS:
        through = losses(runs / before.name)
        continued = losses(runs / f"{before.name}, then {after.name}")
        assert len(through) == 20
        apart = max(abs(a - b) for a, b in zip(through, continued, strict=True))
        worst[f"{before.name} -> {after.ranks} at ZeRO-{after.stage}"] = apart
        print(f"{before.name} -> {after.ranks} at ZeRO-{after.stage}: {apart:.1e}")
    print(f"largest of {len(worst)}: {max(worst.values()):.1e}")
    assert max(worst.values()) < TOLERANCE
