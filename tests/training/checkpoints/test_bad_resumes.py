"""Given a run's folder, whatever is not that run is refused: one message, status 2, and every file as it was.

All through the command line, on one rank.
"""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from batches_for_tests import small_recipe
from made_world import MadeWorld
from ranks import run_on_ranks

from data_tools.shard import shard
from data_tools.shard_settings import ShardSettings
from data_tools.vocabulary import write_vocabulary
from largede.cli import main
from largede.config.load import recipe_to_yaml
from largede.files import fingerprint_of, sha256_file, write_text
from largede.runs.files import read_run_state

NEWEST = "checkpoints/step-00000003"
Answer = tuple[int, str]
"""Exit status and what was said."""

CASES: dict[str, tuple[str, str, str]] = {
    "other depth": ("--model.layers 1", "model.layers is 1 but the run in", "begun with None"),
    "other width": ("--model.embedding_dim 64", "model.embedding_dim is 64", "begun with 768"),
    "other backbone": ("--model.backbone mini", "model.backbone is mini", "begun with smoke"),
    "other layout": ("--model.layout ade", "model.layout is ade", "begun with sde"),
    "other data": ("--data.shards FOLDER/other-shards", "the data's fingerprint is", "name the shards that the run"),
    "other batch": ("--batch.queries 8", "batch.queries is 8", "begun with 16"),
    "fewer lanes": ("--data.lanes 1", "data.lanes is 1", "begun with 2"),
    "other optimizer": ("--optimizer.name adamw", "optimizer.name is adamw", "begun with adafactor"),
    "other seed": ("--run.seed 7", "run.seed is 7", "begun with 0"),
    "other words": ("--model.tokenizer FOLDER/other-words", "the tokenizer's fingerprint is", "is kept in"),
    "fewer steps": ("--run.steps 2", "run.steps is 2", "3 steps are done already: use step-00000003"),
    "more steps": ("--run.steps 9", "run.steps is 9", "the learning rate depends on them"),
    "second stage": (
        f"--run.start_from FOLDER/run/{NEWEST} --data.hard_negatives 2 --model.dropout 0.1",
        "model.dropout is 0.1",
        "such as a second stage, needs a folder of its own: --run.out",
    ),
}


def largede(*words: str) -> Answer:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = main(list(words))
    return status, said.getvalue()


def status_unread(*words: str) -> int:
    """With an output whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as output, contextlib.redirect_stdout(output):
        return main(list(words))


def content(folder: Path) -> dict[str, str]:
    """Every file's checksum."""
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def changed_state(run: Path, **changes: Any) -> None:
    """Change what the newest checkpoint says of itself as if it had been written so."""
    path = run / NEWEST / "state.json"
    values = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    del values["checksum"]
    path.write_text(json.dumps({**values, "checksum": fingerprint_of(values)}), encoding="utf-8")


def story(folder: str, world: MadeWorld) -> dict[str, tuple[Answer, bool]]:
    """What each case was answered, and whether the run's folder stayed as it was."""
    from largede.training import trainer

    # The group is there already, and serves all cases.
    trainer.join_ranks = lambda engine, timeout: None  # type: ignore[assignment]
    trainer.leave_ranks = lambda all_ranks_leave: None  # type: ignore[assignment]
    path, out = Path(folder), Path(folder) / "run"
    settings = {"model__tokenizer": str(world.vocabulary), "data__shards": str(world.shards), "data__lanes": 2}
    recipe = small_recipe(path, batch__queries=16, batch__chunk_tokens=120, run__out=str(out), run__steps=3, **settings)
    write_text(path / "recipe.yaml", recipe_to_yaml(recipe))
    write_vocabulary([world.pairs], path / "other-words", 200)
    shard([world.pairs], path / "other-shards", ShardSettings(shard_pairs=40, block_pairs=10, seed=2))

    train = ["train", str(path / "recipe.yaml")]
    answers = {"first": (largede(*train), True)}

    def ask(name: str, run: Path, *words: str) -> None:
        before = content(run)
        answers[name] = largede(*words), content(run) == before

    for name, (flags, _, _) in CASES.items():
        ask(name, out, *train, *flags.replace("FOLDER", folder).split())
    newer = shutil.copytree(out, path / "newer")
    changed_state(newer, format=99, unheard_of="of")
    ask("newer format", newer, *train, "--run.out", str(newer))
    ask("newer format exported", newer, "export", str(newer / NEWEST), str(path / "model"))
    spoilt = shutil.copytree(out, path / "spoilt")
    for state in spoilt.glob("checkpoints/*/state.json"):
        state.write_text("{", encoding="utf-8")
    answers["all damaged"] = largede(*train, "--run.out", str(spoilt)), len(list(spoilt.glob("checkpoints/*"))) > 1
    ask("all damaged exported", spoilt, "export", str(spoilt), str(path / "model"))
    shutil.copytree(spoilt, path / "unsaved", ignore=shutil.ignore_patterns("step-*"))
    ask("none yet exported", path / "unsaved", "export", str(path / "unsaved"), str(path / "model"))
    ask("nowhere exported", out, "export", str(path / "nowhere"), str(path / "model"))
    ask("exported to nowhere", out, "export", str(out), "/proc/x/model")
    ask("no run exported", world.shards, "export", str(world.shards), str(path / "model"))
    ask("no run started from", out, *train, "--run.out", str(path / "fresh"), "--run.start_from", str(world.shards))
    ask("a run started from", out, *train, "--run.out", str(path / "fresh"), "--run.start_from", str(out))
    answers["unread"] = (status_unread(*train, "--run.out", str(path / "unread")), ""), False
    answers["nothing exported"] = (0, ""), not (path / "model").exists()
    answers["nothing begun"] = (0, ""), not list((path / "fresh").rglob("step-*"))
    return answers


@pytest.fixture(scope="module")
def folder_of_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.fixture(scope="module")
def answers(world: MadeWorld, folder_of_answers: Path) -> dict[str, tuple[Answer, bool]]:
    folder = folder_of_answers
    return run_on_ranks(1, story, folder, str(folder), world)[0]


def refused(answers: dict[str, tuple[Answer, bool]], name: str, *said: str) -> None:
    (status, words), is_untouched = answers[name]
    assert status == 2 and is_untouched, words
    assert words.count("to mend:") == 1 and "Traceback" not in words
    for text in said:
        assert text in words


@pytest.mark.parametrize("name", CASES)
def test_another_run_is_not_continued_in_its_folder(name: str, answers: dict[str, tuple[Answer, bool]]) -> None:
    assert answers["first"][0][0] == 0, answers["first"][0][1]
    _, said, mend = CASES[name]
    refused(answers, name, said, mend)
    # Before a model is made: an introduction would mean minutes for a large one.
    assert "training smoke" not in answers[name][0][1]


@pytest.mark.parametrize("name", ["newer format", "newer format exported"])
def test_a_checkpoint_of_a_newer_largede_is_not_passed_over(name: str, answers: dict[str, tuple[Answer, bool]]) -> None:
    refused(answers, name, "has format 99, of a newer largede", "use the largede that wrote it")


@pytest.mark.parametrize("name", ["no run exported", "no run started from", "a run started from"])
def test_a_folder_that_is_no_checkpoint_is_named(name: str, answers: dict[str, tuple[Answer, bool]]) -> None:
    refused(answers, name, "is no checkpoint: it has no state.json", "a folder step-…")
    assert answers["nothing exported"][1] and answers["nothing begun"][1]


def test_what_cannot_be_exported_is_said_in_its_own_words(answers: dict[str, tuple[Answer, bool]]) -> None:
    refused(answers, "all damaged exported", "no checkpoint of", "can be used: step-00000003 damaged")
    refused(answers, "none yet exported", "has no checkpoint yet")
    refused(answers, "nowhere exported", "nowhere is no checkpoint: there is no such folder", "check the path")
    refused(answers, "exported to nowhere", "/proc keeps no files")
    assert answers["nothing exported"][1]


def test_a_run_does_not_begin_anew_over_checkpoints_that_are_all_damaged(
    answers: dict[str, tuple[Answer, bool]],
) -> None:
    refused(answers, "all damaged", "is passed over", "no checkpoint in", "step-00000003", "move them away")


def test_a_run_whose_output_nobody_reads_goes_on_to_its_end(
    answers: dict[str, tuple[Answer, bool]], folder_of_answers: Path
) -> None:
    assert answers["unread"][0][0] == 0
    said = read_run_state(folder_of_answers / "unread")
    assert said is not None and (said.state, said.step) == ("finished", 3)
    assert (folder_of_answers / "unread" / NEWEST / "state.json").is_file()
