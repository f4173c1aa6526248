"""A run that is continued elsewhere takes the steps of the one that was not interrupted."""

from pathlib import Path

import pytest
from elastic_runs import HALF, OTHER_HALF, RANKS, Pair, continue_all, losses, save_all
from made_world import MadeWorld
from ranks import run_on_ranks

TOLERANCE = 1e-5
"""Of a loss between 2 and 4: another number of ranks adds the same float32 numbers in another order."""


@pytest.fixture(scope="module")
def saved(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs that are not interrupted, each with a checkpoint in its middle."""
    folder = tmp_path_factory.mktemp("elastic")
    for ranks in RANKS:
        run_on_ranks(ranks, save_all, meeting_place(folder / f"saving on {ranks}"), str(folder), world)
    return folder


def meeting_place(folder: Path) -> Path:
    folder.mkdir()
    return folder


def assert_every_pair_of_ranks_and_of_stages(pairs: list[Pair]) -> None:
    assert len({(before.ranks, after.ranks) for before, after in pairs}) == 16
    assert len({(before.stage, after.stage) for before, after in pairs}) == 16


def test_each_half_covers_every_pair_of_ranks_and_of_stages_and_both_do_for_each_optimizer() -> None:
    for half in (HALF, OTHER_HALF):
        assert len(half) == 16
        assert_every_pair_of_ranks_and_of_stages(half)
    for optimizer in ("adafactor", "adamw"):
        assert_every_pair_of_ranks_and_of_stages([pair for pair in HALF + OTHER_HALF if pair[0].optimizer == optimizer])


@pytest.mark.slow
@pytest.mark.parametrize(
    "pairs",
    [pytest.param(HALF, id="half"), pytest.param(OTHER_HALF, id="other half", marks=pytest.mark.exhaustive)],
)
def test_twenty_steps_on_other_ranks_and_stages_are_those_of_the_uninterrupted_run(
    pairs: list[Pair], saved: Path, world: MadeWorld, tmp_path: Path
) -> None:
    for ranks in RANKS:
        own = [(before, after) for before, after in pairs if after.ranks == ranks]
        run_on_ranks(ranks, continue_all, meeting_place(tmp_path / f"on {ranks}"), str(saved), world, own)
    worst = {}
    for before, after in pairs:
        through = losses(saved / before.name)
        continued = losses(saved / f"{before.name}, then {after.name}")
        assert len(through) == 20
        apart = max(abs(a - b) for a, b in zip(through, continued, strict=True))
        worst[f"{before.name} -> {after.ranks} at ZeRO-{after.stage}"] = apart
        print(f"{before.name} -> {after.ranks} at ZeRO-{after.stage}: {apart:.1e}")
    print(f"largest of {len(worst)}: {max(worst.values()):.1e}")
    assert max(worst.values()) < TOLERANCE
