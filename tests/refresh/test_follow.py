"""Mining beside a run: from a checkpoint to a generation that the run takes; whoever is killed leaves nothing half."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hash_encoder import hash_model
from made_world import MadeWorld
from ranks import run_on_ranks
from refreshing_recipe import refreshing_recipe

from data_tools.shard import shard
from data_tools.shard_settings import ShardSettings
from data_tools.verify import verify
from largede import cli
from largede.config.recipe import Recipe
from largede.errors import DataError, MachineError, RecipeError
from largede.files import read_json_object
from largede.refresh.follow import FollowSettings, follow
from largede.refresh.generation import write_generation
from largede.retrieval.mine.settings import MineSettings
from largede.retrieval.mine.sources import ShardPairs
from largede.runs.claims import Claim
from largede.runs.negatives import GENERATIONS, generation_names, read_decisions
from largede.streams.index import ShardIndex
from largede.training.trainer import Trainer

MINING = MineSettings(ranks=(2, 30), negatives=3, window=100, max_query_tokens=16, max_passage_tokens=24)


def recipe_for(world: MadeWorld, folder: Path, out: str, **dotted: Any) -> Recipe:
    own = {"run__steps": 4, "run__log_every": 1}
    return refreshing_recipe(world, folder, out, **own | dotted)


def train(recipe: Recipe, before_batch_2: Any = lambda: None) -> tuple[list[str], list[int]]:
    """What was said, and how many negatives each batch had."""
    lines: list[str] = []
    negatives: list[int] = []
    trainer = Trainer(recipe, lines.append)
    step, refresh = trainer.step, trainer.feed.refresh

    def note(batch: Any) -> Any:
        negatives.append(len(batch.negative_keys))
        return step(batch)

    def refresh_after(place: int, say: Any) -> None:
        if place == 2:
            before_batch_2()
        refresh(place, say)

    note.has_dropout = step.has_dropout  # type: ignore[attr-defined]
    trainer.step = note  # type: ignore[assignment]
    trainer.feed.refresh = refresh_after  # type: ignore[method-assign]
    try:
        trainer.run()
    finally:
        trainer.engine.destroy()
    return lines, negatives


def story(folder_name: str, world: MadeWorld) -> dict[str, Any]:
    """A run beside which is mined from its checkpoint of step 2; then its model mines pairs that another run reads."""
    folder = Path(folder_name)
    run = folder / "run"
    said: list[str] = []

    def mine_beside() -> None:
        shutil.copytree(run, folder / "at 2")
        follow(FollowSettings(run, MINING, once=True), said.append)

    answer: dict[str, Any] = {"run": train(recipe_for(world, folder, "run"), mine_beside), "said": said}
    words = f"mine --model {run} --data {world.pairs} --out {folder}/mined --ranks 2-30"
    assert cli.main([*words.split(), "--negatives", "3", "--max-passage-tokens", "24"]) == 0
    shard([folder / "mined" / "pairs"], folder / "mined-shards", ShardSettings(40, 10))
    other = recipe_for(world, folder, "other", data__shards=str(folder / "mined-shards"), data__refresh_steps=None)
    answer["other"] = train(other)
    return answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("follow")


@pytest.fixture(scope="module")
def answer(folder: Path, world: MadeWorld) -> dict[str, Any]:
    found: dict[str, Any] = run_on_ranks(1, story, folder, str(folder), world)[0]
    return found


@pytest.fixture
def run(answer: dict[str, Any], folder: Path, tmp_path: Path) -> Path:
    """The run as it was after two steps, nothing mined yet."""
    return Path(shutil.copytree(folder / "at 2", tmp_path / "run"))


def test_a_run_takes_what_is_mined_from_its_checkpoint(answer: dict[str, Any], folder: Path, world: MadeWorld) -> None:
    generation = folder / "run" / GENERATIONS / "gen-00001"
    facts = read_json_object(generation / "generation.json")
    assert facts["checkpoint"] == "step-00000002" and facts["summary"]["negatives"] > 600
    assert [(found.from_batch, found.name) for found in read_decisions(folder / "run").generations] == [
        (3, "gen-00001")
    ]
    lines, negatives = answer["run"]
    assert "step 3: hard negatives of gen-00001 from here on" in lines and negatives[3] == 16
    assert any(line.startswith("gen-00001 of step-00000002: ") for line in answer["said"])
    verify(generation).demand_sound()


def test_a_generation_has_the_pairs_in_their_places(answer: dict[str, Any], folder: Path, world: MadeWorld) -> None:
    generation = ShardIndex.load(folder / "run" / GENERATIONS / "gen-00001")
    base = ShardIndex.load(world.shards)
    assert [shard.blocks[:, 2].tolist() for shard in generation.shards] == base.block_sizes
    pairs = list(zip(ShardPairs(base).pairs(), ShardPairs(generation).pairs(), strict=True))
    assert all(before.without_negatives() == after.without_negatives() for before, after in pairs)
    positives = {before.positive for before, _ in pairs}
    assert all(set(after.negatives) <= positives - {after.positive} for _, after in pairs)


def test_mined_pairs_go_straight_into_shards_and_a_run(answer: dict[str, Any], folder: Path) -> None:
    lines, negatives = answer["other"]
    assert lines[-1].startswith("done: 4 steps") and negatives == [16] * 4
    assert read_json_object(folder / "mined" / "summary.json")["pairs_with_fewer"] == 0


KILLED = """
import os, signal, sys
from pathlib import Path
import data_tools.tars as tars
from hash_encoder import hash_model
from largede.refresh.follow import FollowSettings, follow
from test_follow import MINING
write, written = tars.write_shard, []
def write_two(*args):
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(write(*args))
    return written[-1]
tars.write_shard = write_two
follow(FollowSettings(Path(sys.argv[1]), MINING, once=True), open_with=lambda path: hash_model())
"""


def test_killed_while_it_writes_it_leaves_no_generation_and_goes_on_the_next_time(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(run)], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert generation_names(run) == [] and len(list((run / GENERATIONS).glob(".gen-*.partial"))) == 1
    monkeypatch.setattr("largede.retrieval.mine.lists.search", refuse_to_search)
    follow(FollowSettings(run, MINING, once=True), lambda line: None, lambda path: hash_model())
    assert generation_names(run) == ["gen-00001"]
    left = sorted(path.name for path in (run / GENERATIONS).iterdir())
    assert left == ["gen-00001", "work"]


def refuse_to_search(*_: object) -> None:
    raise AssertionError("the lists were made before")


def test_an_interrupted_one_tidies_up(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_tools.tars.write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        follow(FollowSettings(run, MINING, once=True), lambda line: None, lambda path: hash_model())
    assert sorted(path.name for path in (run / GENERATIONS).iterdir()) == ["work"]


def test_a_checkpoint_is_mined_once_and_a_new_one_anew(run: Path) -> None:
    said: list[str] = []
    settings = FollowSettings(run, MINING, once=True)
    follow(settings, said.append, lambda path: hash_model())
    follow(settings, said.append, lambda path: hash_model())
    assert said[-1] == "there is no checkpoint that was not mined from already"
    assert generation_names(run) == ["gen-00001"]
    for step in (4, 6):
        name = f"step-{step:08d}"
        state = Path(shutil.copytree(run / "checkpoints" / "step-00000002", run / "checkpoints" / name)) / "state.json"
        state.write_text(state.read_text() + "\n" * step)
        follow(replace(settings, settings=replace(MINING, seed=step)), said.append, lambda path: hash_model())
        newest = generation_names(run)[-1]
        assert read_json_object(run / GENERATIONS / newest / "generation.json")["checkpoint"] == name
    # The run has read none of them, and keeps the newest two.
    assert generation_names(run) == ["gen-00002", "gen-00003"]
    assert "gen-00001 removed: no checkpoint that is left goes on with it" in said


def test_a_damaged_checkpoint_is_passed_over_and_named(run: Path) -> None:
    for file in (run / "checkpoints" / "step-00000002").glob("slices-*"):
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(bytes(content))
    said: list[str] = []
    follow(FollowSettings(run, MINING, once=True), said.append, lambda path: hash_model())
    assert "step-00000002 is passed over: " in said[-1] and "is damaged" in said[-1]
    assert generation_names(run) == []


def test_two_do_not_follow_one_run(run: Path) -> None:
    claim = Claim(run / GENERATIONS / "follower.json")
    claim.take()
    try:
        with pytest.raises(MachineError, match="is followed by process"):
            follow(FollowSettings(run, MINING, once=True), lambda line: None, lambda path: hash_model())
    finally:
        claim.release()


def test_a_run_that_would_never_look_and_no_run_at_all_are_refused(run: Path, tmp_path: Path) -> None:
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("refresh_steps: 3", "refresh_steps: null"))
    with pytest.raises(RecipeError, match=r"data\.refresh_steps of .* is empty"):
        follow(FollowSettings(run, MINING, once=True))
    with pytest.raises(DataError, match="is no run folder"):
        follow(FollowSettings(tmp_path, MINING, once=True))


@pytest.mark.parametrize("words", [["--model", "m"], ["--out", "o"], ["--data", "a", "b"]])
def test_flags_in_the_way_of_follow_are_refused(
    run: Path, words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["mine", "--follow", str(run), *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_other_pairs_make_no_generation(world: MadeWorld, tmp_path: Path) -> None:
    base = ShardIndex.load(world.shards)
    pairs = list(ShardPairs(base).pairs())
    changed = [*pairs[:100], pairs[100]._replace(query="another"), *pairs[101:]]
    for given, words in ((changed, "other pairs in block"), (pairs[:-1], "other pairs"), ([*pairs, pairs[0]], "more")):
        with pytest.raises(DataError, match=words):
            write_generation(base, iter(given), tmp_path / "out", {})
        assert list(tmp_path.iterdir()) == []
