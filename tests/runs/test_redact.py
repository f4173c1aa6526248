"""What is kept of a run holds no secret: not its recipe, its command or its errors, nor what TensorBoard shows."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from largede.config.load import load_recipe, with_settings
from largede.config.recipe import Recipe
from largede.errors import DataError
from largede.runs.redact import hide_in_command_line, hide_secrets, shareable, without_secrets
from largede.training.agreement import refuse_other_run
from largede.training.board import introduce
from largede.training.checkpoints.state import CheckpointState, recipe_of
from largede.training.run_folder import write_part
from largede.training.run_life import how_it_ended

SECRET = "-".join(["squeamish", "ossifrage"])  # not whole in this file: changes of it are kept too
PIPE = f"pipe:curl -s -u me:{SECRET} -H 'X-Key: {SECRET}' https://host/{{name}}"
PLACES = [PIPE, f"https://me:{SECRET}@host/a", f"https://{SECRET}@host/a", f"https://host/a?k={SECRET}#{SECRET}"]


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("/data/shards", "/data/shards"),
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("http://host:8080/a", "http://host:8080/a"),
        (PLACES[0], "pipe: a command"),
        (PLACES[1], "https://[hidden]@host/a"),
        (PLACES[2], "https://[hidden]@host/a"),
        (PLACES[3], "https://host/a?[hidden]"),
    ],
)
def test_a_place_keeps_all_but_its_secrets(place: str, kept: str) -> None:
    assert without_secrets(place) == without_secrets(kept) == kept


@pytest.mark.parametrize("place", PLACES)
def test_the_folder_of_a_run_has_no_secret_in_any_file(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    from largede.runs.provenance import provenance

    for words in (
        ["--data.shards", place],
        [f"--data.shards={place}"],
        ["--data.sources", f"{{a: {{shards: {place}}}}}"],
    ):
        monkeypatch.setattr("sys.argv", ["largede", "train", *words])
        facts: dict[str, Any] = {**provenance(), "started": 1.0, "world_size": 1, "data_fingerprint": "f00d"}
        recipe = with_settings(Recipe(), data__shards=place)
        write_part(tmp_path, recipe, facts)
        mixed = with_settings(Recipe(), data__sources={"a": {"shards": place}, "b": {"shards": "/b"}})
        write_part(tmp_path, mixed, facts)
        with SummaryWriter(str(tmp_path / "tensorboard")) as writer:
            introduce(writer, recipe, facts)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 20 and load_recipe(tmp_path / "recipe.yaml") == shareable(mixed)
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


def test_a_run_goes_on_from_a_checkpoint_whose_place_was_left_out(tmp_path: Path) -> None:
    recipe = with_settings(Recipe(), data__shards=PIPE)
    state = CheckpointState(1, 1, asdict(shareable(recipe)), "f00d", {}, {}, {})
    assert recipe_of(state).data.shards == "pipe: a command"
    refuse_other_run(recipe, "f00d", "", tmp_path / "checkpoints" / "step-00000001", state)


@pytest.mark.parametrize(
    "words",
    [
        f"curl -u me:{SECRET} https://host",
        f"curl -ume:{SECRET} https://host",
        f"curl --user 'me:{SECRET}' https://host",
        f"wget --password {SECRET}",
        f"wget --http-password='{SECRET}'",
        f"fetch --token {SECRET}",
        f"fetch --api-key={SECRET}",
        f"curl -H 'Authorization: {SECRET}'",
        f'curl --header "X-Auth: {SECRET}"',
    ],
)
def test_secrets_on_a_command_line_are_hidden(words: str) -> None:
    assert SECRET not in hide_secrets(words) and "[hidden]" in hide_secrets(words)
    assert SECRET not in hide_in_command_line(shlex.split(words))


def test_what_a_command_line_says_besides_is_kept() -> None:
    words = "largede train quickstart --batch.chunk_tokens 4096 --model.tokenizer google-t5/t5-base --run.out runs/a"
    assert hide_in_command_line(words.split()) == words
    assert hide_in_command_line(["train", "--data.shards", PIPE, "--run.steps", "5"]) == (
        "train --data.shards 'pipe: a command' --run.steps 5"
    )


def test_the_error_that_ended_a_run_is_kept_without_the_command() -> None:
    error = DataError(f"data.shards is {PIPE}, not {PIPE}", expected="the same", mend="mend it")
    assert how_it_ended(error) == ("failed", "data.shards is pipe: a command")
