"""A run that is interrupted ends as one that is not, on the same and on other numbers of ranks."""

import contextlib
import json
import math
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from batches_for_tests import small_recipe
from made_world import MadeWorld
from ranks import run_on_ranks

from data_tools.shard import shard
from data_tools.shard_settings import ShardSettings
from data_tools.vocabulary import write_vocabulary
from largede.config.recipe import Recipe
from largede.errors import CheckpointError, MachineError, RecipeError, TrainingError
from largede.training import agreement
from largede.training.adafactor import ZeroAdafactor
from largede.training.checkpoints import write as write_module
from largede.training.checkpoints.read import SliceReader
from largede.training.checkpoints.state import read_state
from largede.training.liveness.watchdog import Watchdog
from largede.training.run_life import EXIT_SAVED_ON_SIGNAL
from largede.training.trainer import Trainer


def recipe_for(world: MadeWorld, folder: Path, out: str, stage: int = 3, **dotted: Any) -> Recipe:
    settings: dict[str, Any] = {
        "model__tokenizer": str(world.vocabulary),
        "model__layers": 1,
        "model__dropout": 0.1,
        "data__shards": str(world.shards),
        "data__lanes": 2,
        "data__hard_negatives": 1,
        "batch__queries": 16,
        "batch__chunk_tokens": 120,
        "optimizer__learning_rate": 0.01,
        "run__out": str(folder / out),
        "run__steps": 6,
        "run__log_every": 1,
        "run__checkpoint_every": 2,
        "run__keep_checkpoints": 10,
        "run__dry_run": False,
    }
    return small_recipe(folder, stage, **{**settings, **dotted})


def train_in_process(recipe: Recipe) -> list[str]:
    lines: list[str] = []
    trainer = Trainer(recipe, lines.append)
    try:
        trainer.run()
    finally:
        trainer.engine.destroy()
    return lines


def weights(out: Path, step: int = 6) -> dict[str, torch.Tensor]:
    path = out / "checkpoints" / f"step-{step:08d}"
    state = read_state(path)
    reader = SliceReader(path, state)
    return {name: reader.whole_parameter(name) for name in state.parameters}


def losses(out: Path) -> list[float]:
    lines = (out / "figures.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 7))
    return [json.loads(line)["loss/contrastive"] for line in lines]


def forget_after(out: Path, step: int) -> None:
    """Make the run look as it did after `step`; on rank 0, the others wait."""
    if dist.get_rank() == 0:
        for path in (out / "checkpoints").glob("step-*"):
            if int(path.name[5:]) > step:
                shutil.rmtree(path)
    dist.barrier()


def damage_newest(out: Path) -> None:
    if dist.get_rank() == 0:
        newest = sorted((out / "checkpoints").glob("step-*"))[-1]
        file = newest / "slices-00000-of-00002.safetensors"
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(bytes(content))
    dist.barrier()


def error_of(recipe: Recipe) -> str:
    try:
        train_in_process(recipe)
    except (CheckpointError, TrainingError, RecipeError, MachineError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def whole_story(folder: str, world: MadeWorld) -> dict[str, Any]:
    """On two ranks: train through; interrupt and go on; damage and go on; signal; and what must be refused."""
    path = Path(folder)
    answer: dict[str, Any] = {}
    through = recipe_for(world, path, "through", run__dry_run=True)
    answer["lines"] = train_in_process(through)
    if dist.get_rank() == 0:
        shutil.copytree(path / "through", path / "alone")
        shutil.copytree(path / "through", path / "again")
    forget_after(path / "again", 4)
    damage_newest(path / "again")
    answer["again"] = train_in_process(recipe_for(world, path, "again"))
    train_in_process(recipe_for(world, path, "no dry run"))
    answer["norms"] = [first_norm(world, path, stage) for stage in (0, 1, 3)]
    answer["collapsed"] = error_of(
        recipe_for(
            world, path, "collapsed", guard__on_collapse="stop", guard__collapse_cosine=1e-6, guard__spike_window=1
        )
    )
    answer["rewound"] = rewound(world, path, on_spike="rewind")
    answer["stopped by a spike"] = error_of_spike(world, path)
    answer["nowhere to go back to"] = rewound_to_nothing(world, path)
    answer["rewind that cannot load"] = rewound_in_vain(world, path)

    # A loader process more must not change a single number either.
    # The signal falls on a step that saves anyway: all ranks must leave, not only the one that was told.
    signalled = recipe_for(world, path, "signalled", run__checkpoint_every=3, data__workers=1)
    trainer = Trainer(signalled, lambda line: None)
    original = trainer.train_step

    def step_with_signal() -> Any:
        report = original()
        if trainer.steps_done == 3 and dist.get_rank() == 1:
            signal.raise_signal(signal.SIGUSR1)
        return report

    trainer.train_step = step_with_signal  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as left:
        trainer.run()
    trainer.engine.destroy()
    answer["exit"] = left.value.code
    answer["after signal"] = train_in_process(signalled)

    newest = str(path / "through/checkpoints/step-00000006")
    answer["other batch"] = error_of(recipe_for(world, path, "through", batch__queries=32))
    answer["other rate"] = error_of(recipe_for(world, path, "through", optimizer__learning_rate=0.02))
    (path / "a file").write_text("in the way")
    other_words = path / "other-words"
    if dist.get_rank() == 0:
        write_vocabulary([world.pairs], other_words, 200)
    dist.barrier()
    answer["other words"] = error_of(recipe_for(world, path, "through", model__tokenizer=str(other_words)))
    answer["hosts that differ"] = hosts_that_differ(world, path, other_words)
    answer["no start"] = error_of(recipe_for(world, path, "unstarted", run__start_from=str(path / "nothing")))
    answer["no folder"] = error_of(recipe_for(world, path, "a file/run"))
    if dist.get_rank() == 0:
        shutil.copytree(path / "through", path / "hurt")
    dist.barrier()
    damage_newest(path / "hurt")
    hurt = str(path / "hurt/checkpoints/step-00000006")
    answer["damaged start"] = error_of(recipe_for(world, path, "fresh", run__start_from=hurt))
    answer["other model"] = error_of(recipe_for(world, path, "fresh", model__layout="ade", run__start_from=newest))
    answer["nan"] = error_of(recipe_for(world, path, "nan", optimizer__learning_rate=1e38))
    answer["ranks disagree"] = error_of(recipe_for(world, path, "x", run__steps=6 + dist.get_rank()))
    answer["full disk"] = full_disk(recipe_for(world, path, "full"))
    answer["fresh moments"] = moments_at_start(recipe_for(world, path, "warm", run__start_from=newest))
    answer["warm start"] = train_in_process(recipe_for(world, path, "warm", run__start_from=newest))
    gone = str(path / "gone/step-00000006")
    answer["start gone"] = train_in_process(recipe_for(world, path, "warm", run__start_from=gone))
    answer["adamw"] = adamw_goes_on(recipe_for(world, path, "adamw", optimizer__name="adamw"))
    return answer


SPIKE = {"guard__spike_window": 4, "guard__spike_patience": 2, "run__steps": 10, "run__out": ""}


def spiking(world: MadeWorld, folder: Path, out: str, on_spike: str) -> tuple[Trainer, list[str]]:
    """A run whose batches 7 and 8 seem to have ten times the loss: a checkpoint is written between them."""
    settings = {**SPIKE, "run__out": str(folder / out), "guard__on_spike": on_spike}
    lines: list[str] = []
    trainer = Trainer(recipe_for(world, folder, out, **settings), lines.append)
    original = trainer.step

    def step(batch: Any) -> Any:
        report = original(batch)
        factor = 10.0 if batch.step in (7, 8) else 1.0
        return replace(report, score=replace(report.score, loss=factor * report.score.loss))

    step.has_dropout = original.has_dropout  # type: ignore[attr-defined]
    trainer.step = step  # type: ignore[assignment]
    return trainer, lines


def rewound(world: MadeWorld, folder: Path, on_spike: str) -> list[str]:
    """Let a run rewind; beside it, let another be killed right after and go on from the checkpoint it went back to."""
    trainer, lines = spiking(world, folder, "rewound", on_spike)
    trainer.run()
    trainer.engine.destroy()
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.copytree(folder / "rewound", folder / "left out")
    forget_after(folder / "left out", 6)
    other, _ = spiking(world, folder, "left out", "stop")
    other.run()
    other.engine.destroy()
    return lines


def rewound_to_nothing(world: MadeWorld, folder: Path) -> tuple[list[str], list[str]]:
    """What a run says that sees a spike when every checkpoint from before it is damaged, and what it then has."""
    trainer, lines = spiking(world, folder, "nowhere", "rewind")
    original = trainer.rewind

    def rewind() -> bool:
        if dist.get_rank() == 0:
            for step in (2, 4, 6):
                (trainer.checkpoints / f"step-{step:08d}" / "state.json").write_text("{")
        dist.barrier()
        has_rewound = original()
        dist.barrier()
        return has_rewound

    trainer.rewind = rewind  # type: ignore[method-assign]
    trainer.run()
    trainer.engine.destroy()
    return lines, sorted(path.name for path in trainer.checkpoints.iterdir())


def rewound_in_vain(world: MadeWorld, folder: Path) -> tuple[str, list[str]]:
    """How a run ends that cannot load the checkpoint from before a spike, and what it then has."""
    trainer, _ = spiking(world, folder, "in vain", "rewind")

    def cannot_load(*_: object) -> None:
        raise CheckpointError("the disk is away", expected="", mend="")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("largede.training.trainer.load_checkpoint", cannot_load)
        with pytest.raises(CheckpointError) as error:
            trainer.run()
    trainer.engine.destroy()
    dist.barrier()
    return error.value.given, sorted(path.name for path in trainer.checkpoints.iterdir())


def error_of_spike(world: MadeWorld, folder: Path) -> str:
    trainer, _ = spiking(world, folder, "spike", "stop")
    try:
        trainer.run()
    except TrainingError as error:
        return str(error)
    finally:
        trainer.engine.destroy()
    return "no error"


def hosts_that_differ(world: MadeWorld, folder: Path, other_words: Path) -> dict[str, str]:
    """Each rank names the same things but finds others there, as on hosts with folders of their own."""
    rank = dist.get_rank()
    host = folder / f"host-{rank}"
    host.mkdir()
    (host / "words").symlink_to((world.vocabulary, other_words)[rank])
    (host / "start").symlink_to(folder / "through" / "checkpoints" / ("step-00000004", "step-00000006")[rank])
    shards = folder / f"shards-{rank}"
    shard([world.pairs], shards, ShardSettings(shard_pairs=40, block_pairs=10, seed=1 + rank))
    (host / "shards").symlink_to(shards)
    (host / "own.json").write_text(json.dumps({"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000 + rank}}))
    named = {
        "tokenizer": {"model__tokenizer": "words"},
        "data": {"data__shards": "shards"},
        "DeepSpeed file": {"engine__deepspeed": "own.json"},
        "checkpoint": {"run__start_from": "start"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(host)
        errors = {what: error_of(recipe_for(world, folder, "hosts", **names)) for what, names in named.items()}
        patch.setattr(agreement, "library_versions", lambda: {"torch": f"2.{rank}"})
        errors["versions"] = error_of(recipe_for(world, folder, "hosts"))
    return errors


def first_norm(world: MadeWorld, folder: Path, stage: int) -> float:
    out = folder / f"norm-{stage}"
    train_in_process(recipe_for(world, folder, out.name, stage, run__steps=1))
    return float(json.loads((out / "figures.jsonl").read_text(encoding="utf-8"))["optimizer/gradient_norm"])


def moments_at_start(recipe: Recipe) -> tuple[int, float]:
    """Steps that Adafactor counts and the largest number in its moments, before the first step of a run."""
    trainer = Trainer(recipe, lambda line: None)
    optimizer = trainer.optimizer
    assert isinstance(optimizer, ZeroAdafactor) and optimizer.moments
    largest = max(float(t.abs().max()) for m in optimizer.moments.values() for t in m.tensors().values() if t.numel())
    trainer.engine.destroy()
    return optimizer.step_count, largest


def full_disk(recipe: Recipe) -> str:
    original = write_module.write_tensor_file

    def failing(*args: Any) -> Any:
        if dist.get_rank() == 1:
            raise OSError(28, "No space left on device")
        return original(*args)

    write_module.write_tensor_file = failing
    try:
        return error_of(recipe)
    finally:
        write_module.write_tensor_file = original


@contextlib.contextmanager
def watches_that_meet() -> Iterator[None]:
    """Rank 1 removes the folders of the watch before when rank 0 would be making those of the next."""
    make, end = Watchdog._clear_after_more_ranks, Watchdog.close

    def slow_make(self: Watchdog, folder: Path) -> None:
        make(self, folder)
        time.sleep(0.2 * (self.rank == 0))

    def slow_end(self: Watchdog, *args: Any, **settings: Any) -> None:
        time.sleep(0.3 * (self.rank == 1))
        end(self, *args, **settings)
        time.sleep(0.3 * (self.rank == 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watchdog, "_clear_after_more_ranks", slow_make)
        patch.setattr(Watchdog, "close", slow_end)
        yield


def adamw_goes_on(recipe: Recipe) -> float:
    """Largest difference of weights between a run of AdamW and the same run continued from its middle."""
    train_in_process(recipe)
    out = Path(recipe.run.out)
    before = weights(out)
    dist.barrier()
    forget_after(out, 2)
    with watches_that_meet():
        train_in_process(recipe)
    return max(float((before[n] - w).abs().max()) for n, w in weights(out).items())


def go_on_at_stage_2(folder: str, world: MadeWorld) -> None:
    forget_after(Path(folder) / "alone", 2)
    train_in_process(recipe_for(world, Path(folder), "alone", stage=2, model__dropout=0.0))


def train_without_dropout(folder: str, world: MadeWorld) -> None:
    train_in_process(recipe_for(world, Path(folder), "alone", model__dropout=0.0))


@pytest.fixture(scope="module")
def story(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs")
    return folder, run_on_ranks(2, whole_story, folder, str(folder), world)[0]


def test_training_prints_and_lowers_the_loss(story: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = story
    assert answer["lines"][0].startswith("training smoke")
    assert "left" in answer["lines"][2] and "pairs/s" in answer["lines"][2]
    found = losses(folder / "through")
    assert found[-1] < found[0]


def test_an_interrupted_run_ends_bit_for_bit_like_the_other(story: tuple[Path, dict[str, Any]]) -> None:
    """Step 4's checkpoint is damaged, so the run goes on from step 2, dropout included."""
    folder, answer = story
    assert any("continuing from" in line and "step-00000002" in line for line in answer["again"])
    assert losses(folder / "again") == losses(folder / "through")
    expected = weights(folder / "through")
    assert all(torch.equal(w, expected[n]) for n, w in weights(folder / "again").items())


def test_the_dry_run_leaves_no_trace(story: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = story
    assert any(line.startswith("dry run: the largest step fits") for line in answer["lines"])
    expected, found = weights(folder / "through"), weights(folder / "no dry run")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_spike_rewinds_and_leaves_its_batches_out(story: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = story
    assert any("step 9: warning: the loss has been above 2 times" in line for line in answer["rewound"])
    assert any("back to step-00000006; the 3 batches since are left out" in line for line in answer["rewound"])
    for step in (6, 10):  # saved at once, so that a restart does not meet the spike again
        state = read_state(folder / f"rewound/checkpoints/step-{step:08d}")
        assert (state.step, state.skipped_batches) == (step, 3)
    before = read_state(folder / "rewound/checkpoints/step-00000004")
    assert (before.skipped_batches, state.rewinds) == (0, 1)
    expected, found = weights(folder / "left out", 10), weights(folder / "rewound", 10)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert answer["stopped by a spike"].startswith("step 9: the loss has been above 2 times")


def test_a_rewind_that_has_nowhere_to_go_takes_nothing_away(story: tuple[Path, dict[str, Any]]) -> None:
    lines, found = story[1]["nowhere to go back to"]
    assert any("there is no checkpoint from before it to go back to" in line for line in lines)
    assert found == ["latest.json", *(f"step-{step:08d}" for step in (2, 4, 6, 8, 10))]
    said, found = story[1]["rewind that cannot load"]
    assert said == "the disk is away"
    assert found == ["latest.json", *(f"step-{step:08d}" for step in (2, 4, 6, 8))]


def test_a_signal_on_one_rank_saves_and_leaves_all(story: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = story
    assert answer["exit"] == EXIT_SAVED_ON_SIGNAL
    assert any("step-00000003" in line for line in answer["after signal"])
    assert losses(folder / "signalled") == losses(folder / "through")


def test_adamw_continues_exactly(story: tuple[Path, dict[str, Any]]) -> None:
    assert story[1]["adamw"] == 0.0


def test_warm_start_takes_weights_and_fresh_moments(story: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = story
    assert any("starting from the weights" in line for line in answer["warm start"])
    assert any("continuing from" in line for line in answer["start gone"]), "it was needed only once"
    assert losses(folder / "warm")[0] < losses(folder / "through")[0]
    # Nothing but its weights tells it from a run of its own: the optimizer begins at its first step, without moments.
    assert answer["fresh moments"] == (0, 0.0)


def test_what_cannot_be_continued_is_refused(story: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = story
    assert "batch.queries is 32" in answer["other batch"] and "--run.out" in answer["other batch"]
    assert "optimizer.learning_rate is 0.02" in answer["other rate"]
    assert "Not a directory" in answer["no folder"] and "to mend:" in answer["no folder"]
    assert "is of another model" in answer["other model"]
    assert "hurt/checkpoints/step-00000006 is damaged: slices-00000-of-00002" in answer["damaged start"]
    assert "rank 1 has another run.steps in its recipe than rank 0: 7, not 6" in answer["ranks disagree"]
    assert "the tokenizer's fingerprint is" in answer["other words"]
    assert "is no checkpoint" in answer["no start"] and not (folder / "unstarted/checkpoints").exists()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("tokenizer", "another tokenizer"),
        ("data", "another data"),
        ("DeepSpeed file", "another DeepSpeed file"),
        ("checkpoint", "another checkpoint in run.start_from"),
        ("versions", "another set of library versions"),
    ],
)
def test_ranks_that_find_other_things_under_one_name_stop(
    what: str, said: str, story: tuple[Path, dict[str, Any]]
) -> None:
    assert f"rank 1 has {said} than rank 0: " in story[1]["hosts that differ"][what]
    assert not (story[0] / "hosts").exists(), "refused before anything is written"


def test_a_loss_that_is_not_finite_stops_all_ranks_and_names_pairs(story: tuple[Path, dict[str, Any]]) -> None:
    assert "TrainingError: the loss of step 1 is nan" in story[1]["nan"]
    assert "embeddings: q" in story[1]["nan"]
    assert not list((story[0] / "nan" / "checkpoints").glob("step-*"))


def test_the_gradient_norm_does_not_depend_on_the_stage(story: tuple[Path, dict[str, Any]]) -> None:
    at_zero, *others = story[1]["norms"]
    assert at_zero > 0 and others == pytest.approx([at_zero, at_zero], rel=1e-4)


def test_a_collapse_stops_a_run_that_is_told_to(story: tuple[Path, dict[str, Any]]) -> None:
    assert "TrainingError: the embeddings have collapsed by step" in story[1]["collapsed"]


def test_a_full_disk_leaves_no_half_checkpoint(story: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = story
    assert "rank 1: [Errno 28]" in answer["full disk"] and "No space left" in answer["full disk"]
    assert list((folder / "full" / "checkpoints").iterdir()) == []


def test_a_run_goes_on_with_another_number_of_ranks_and_another_stage(
    world: MadeWorld, tmp_path: Path, story: tuple[Path, dict[str, Any]]
) -> None:
    """Without dropout (whose units depend on the rank) two ranks at ZeRO-3 and three at ZeRO-2 take the same steps."""
    for name in ("two", "three"):
        (tmp_path / name).mkdir()
    run_on_ranks(2, train_without_dropout, tmp_path / "two", str(tmp_path / "two"), world)
    shutil.copytree(tmp_path / "two" / "alone", tmp_path / "three" / "alone")
    run_on_ranks(3, go_on_at_stage_2, tmp_path / "three", str(tmp_path / "three"), world)
    for before, after in zip(losses(tmp_path / "two" / "alone"), losses(tmp_path / "three" / "alone"), strict=True):
        assert math.isclose(before, after, rel_tol=1e-5)


def test_curves_have_every_figure_the_readme_names(story: tuple[Path, dict[str, Any]]) -> None:
    from largede.evaluation.report.curves import read_curves

    curves = read_curves(story[0] / "again" / "tensorboard")
    for tag in (
        "loss/contrastive",
        "quality/in_batch_mrr",
        "quality/effective_rank_of_queries",
        "quality/mean_cosine_of_passages",
        "update_to_parameter_rms/attention",
        "data/padding_percent",
        "data/waiting_percent",
    ):
        assert [step for step, _ in curves[tag]] == [1, 2, 3, 4, 5, 6], tag
