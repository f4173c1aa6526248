"""A run that takes refreshed negatives reads the same batches however it is interrupted and on however many ranks."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from made_world import MadeWorld
from ranks import run_on_ranks
from refreshing_recipe import refreshing_recipe

from largede.config.recipe import Recipe
from largede.errors import CheckpointError, DataError, LargedeError
from largede.files import write_json
from largede.refresh.generation import write_generation
from largede.retrieval.mine.sources import ShardPairs
from largede.runs.negatives import GENERATIONS, read_decisions
from largede.streams.index import ShardIndex
from largede.streams.pair import Pair
from largede.training.checkpoints.state import read_state
from largede.training.trainer import Trainer

STEPS = 12
Batches = list[tuple[int, list[int]]]
"""(place, the keys of the negatives and the texts of this rank's rows) of every batch that was stepped."""


def recipe_for(world: MadeWorld, folder: Path, out: str, **dotted: Any) -> Recipe:
    own = {"run__steps": STEPS, "run__log_every": 4, "run__keep_checkpoints": 20}
    return refreshing_recipe(world, folder, out, **own | dotted)


def make_generation(shards: Path, run: Path, number: int, word: str) -> Path:
    """A generation whose negatives all say `word`, so that batches show which one they are of."""

    def pairs() -> Iterator[Pair]:
        for place, pair in enumerate(ShardPairs(ShardIndex.load(shards)).pairs()):
            yield pair.without_negatives()._replace(negatives=tuple(f"{word} {place} {i}" for i in range(3)))

    out = run / GENERATIONS / f"gen-{number:05d}"
    write_generation(ShardIndex.load(shards), pairs(), out, {"checkpoint": "made"})
    return out


def trained(recipe: Recipe, offered: dict[int, Any], stop_at: int = STEPS) -> tuple[Batches, list[str]]:
    """Train; `offered[n]()` is done by rank 0 before batch n is asked for. What was read, and what was said."""
    lines: list[str] = []
    read: Batches = []
    trainer = Trainer(recipe, lines.append)
    refresh, step = trainer.feed.refresh, trainer.step

    def refresh_after(place: int, say: Any) -> None:
        if place >= stop_at:
            raise KeyboardInterrupt  # as good as a kill: nothing is saved any more
        if place in offered and (not dist.is_initialized() or dist.get_rank() == 0):
            offered[place]()
        if dist.is_initialized():
            dist.barrier()
        refresh(place, say)

    def note(batch: Any) -> Any:
        read.append((batch.step, [*batch.negative_keys[:, 0].tolist(), *batch.query_keys[:, 2].tolist()]))
        return step(batch)

    note.has_dropout = step.has_dropout  # type: ignore[attr-defined]
    trainer.feed.refresh = refresh_after  # type: ignore[method-assign]
    trainer.step = note  # type: ignore[assignment]
    try:
        trainer.run()
    except KeyboardInterrupt:
        trainer.saver.finish()
        trainer.close()
    finally:
        trainer.engine.destroy()
    return read, lines


def forget_after(run: Path, step: int) -> None:
    for path in (run / "checkpoints").glob("step-*"):
        if int(path.name[5:]) > step:
            shutil.rmtree(path)


def begin_again(folder: Path, name: str, step: int) -> None:
    """A copy of the run "through" as it was at a checkpoint. What it decided later is in it, as after a kill."""
    if dist.get_rank() == 0:
        shutil.copytree(folder / "through", folder / name)
        forget_after(folder / name, step)
    dist.barrier()


def through(folder_name: str, world: MadeWorld) -> tuple[Batches, list[str]]:
    """Offers of: a sound generation before 3, a damaged one and one of other pairs before 6, a sound one before 8."""
    folder = Path(folder_name)
    run = folder / "through"

    def damaged() -> None:
        shard = make_generation(world.shards, run, 7, "damaged") / "shard-00002.tar"
        content = bytearray(shard.read_bytes())
        content[700] ^= 1
        shard.write_bytes(bytes(content))

    def foreign() -> None:
        out = make_generation(world.shards, run, 8, "foreign")
        facts = json.loads((out / "generation.json").read_bytes())
        write_json(out / "generation.json", {**facts, "base": "another"})
        damaged()

    offers = {
        2: lambda: make_generation(world.shards, run, 1, "first"),
        6: foreign,
        8: lambda: make_generation(world.shards, run, 9, "second"),
    }
    return trained(recipe_for(world, folder, "through", data__workers=1), offers)


def error_of(recipe: Recipe) -> LargedeError:
    with pytest.raises(LargedeError) as error:
        trained(recipe, {})
    return error.value


def alone(folder_name: str, world: MadeWorld) -> dict[str, Any]:
    """On one rank: the run that took gen-00001 at batch 3 and gen-00009 at batch 9, and what became of copies of it."""
    folder = Path(folder_name)
    answer: dict[str, Any] = {"through": through(folder_name, world)}
    begin_again(folder, "at 8", 8)
    answer["at 8"] = trained(recipe_for(world, folder, "at 8"), {})[0]
    # Without the file: the checkpoint knows what was decided before it.
    begin_again(folder, "lost", 10)
    (folder / "lost" / "negatives.json").unlink()
    answer["lost"] = trained(recipe_for(world, folder, "lost"), {})[0]
    for name, step in (("gone", 10), ("gone later", 8)):
        begin_again(folder, name, step)
        shutil.rmtree(folder / name / GENERATIONS / "gen-00009")
        answer[name] = error_of(recipe_for(world, folder, name))
    begin_again(folder, "other", 10)
    decided = json.loads((folder / "other" / "negatives.json").read_bytes())
    decided["generations"][0]["from_batch"] = 6
    write_json(folder / "other" / "negatives.json", decided)
    answer["other"] = error_of(recipe_for(world, folder, "other"))
    return answer


def together(folder_name: str, world: MadeWorld) -> Batches:
    """On several ranks: the run goes on from before it took any generation."""
    folder = Path(folder_name)
    begin_again(folder, "at 2", 2)
    return trained(recipe_for(world, folder, "at 2"), {})[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refreshed")


@pytest.fixture(scope="module")
def answer(folder: Path, world: MadeWorld) -> dict[str, Any]:
    found: dict[str, Any] = run_on_ranks(1, alone, folder, str(folder), world)[0]
    return found


@pytest.fixture(scope="module")
def whole(answer: dict[str, Any]) -> Batches:
    """What the run that nobody interrupted read."""
    return of_all_ranks([answer["through"][0]])


def of_all_ranks(parts: list[Batches]) -> list[tuple[int, list[int]]]:
    return [(batches[0][0], sorted(key for _, keys in batches for key in keys)) for batches in zip(*parts, strict=True)]


def test_a_generation_is_taken_at_the_next_boundary_and_not_before(answer: dict[str, Any], folder: Path) -> None:
    decisions = read_decisions(folder / "through")
    assert [(found.from_batch, found.name) for found in decisions.generations] == [(3, "gen-00001"), (9, "gen-00009")]
    assert decisions.decided == 9
    negatives = [len(keys) - 8 for _, keys in answer["through"][0]]
    # The shards themselves have none, one or two negatives for each pair; those offered have enough.
    assert negatives[3:] == [16] * 9 and max(negatives[:3]) < 16
    state = read_state(folder / "through" / "checkpoints" / "step-00000006")
    assert state.negatives == {"decided": 3, "generations": [decisions.to_dict()["generations"][0]]}


def test_a_damaged_or_foreign_generation_is_named_and_the_run_goes_on_with_the_old(answer: dict[str, Any]) -> None:
    said = [line for line in answer["through"][1] if "hard negatives" in line]
    assert [line.partition(":")[0] for line in said] == ["step 3", "step 6", "step 6", "step 9"]
    assert "gen-00008 are not taken: it was made of other pairs (another…" in said[1]
    assert "gen-00007 are not taken: shard-00002.tar damaged; going on with gen-00001" in said[2]


@pytest.mark.parametrize(("name", "step"), [("at 8", 8), ("lost", 10)])
def test_a_run_that_goes_on_reads_what_the_uninterrupted_one_read(
    answer: dict[str, Any], whole: Batches, name: str, step: int
) -> None:
    assert of_all_ranks([answer[name]]) == whole[step:]


def test_on_two_ranks_it_reads_the_same(folder: Path, whole: Batches, world: MadeWorld) -> None:
    place = folder / "meeting"
    place.mkdir()
    parts = run_on_ranks(2, together, place, str(folder), world)
    assert of_all_ranks(parts) == whole[2:]


def test_a_run_does_not_go_on_with_other_negatives_than_it_decided_on(answer: dict[str, Any]) -> None:
    for name in ("gone", "gone later"):
        assert isinstance(answer[name], DataError)
        assert "gen-00009 is gone, and from batch 9 on" in str(answer[name])
    assert isinstance(answer["other"], CheckpointError)
    assert "negatives.json names other generations" in str(answer["other"])
