"""A run has its folder to itself, says what it is doing, leaves when it is asked to, and keeps what it ran with."""

import errno
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from made_claims import holder_elsewhere
from made_world import MadeWorld
from ranks import run_on_ranks
from test_trainer import recipe_for

from largede.config.recipe import Recipe
from largede.errors import LargedeError, TrainingError
from largede.runs import claims
from largede.runs.claims import Claim
from largede.runs.files import LOCK, STATE, STOP, ask_to_stop, life_of, read_run_state, stop_reason
from largede.training.liveness.watchdog import RankLost
from largede.training.run_folder import drop_later_figures, write_part
from largede.training.run_life import RunLife, how_it_ended
from largede.training.trainer import Trainer

SECRET = "-".join(["squeamish", "ossifrage"])  # not whole in this file: changes of it are kept too


def run_with_life(recipe: Recipe, after_step: Any = None) -> list[str]:
    """What `train` does inside its process group; `after_step(trainer)` is called after each step."""
    lines: list[str] = []
    try:
        with RunLife(Path(recipe.run.out), recipe.run.steps, lines.append) as life:
            trainer = Trainer(recipe, lines.append, life=life, allow_pipe=True)
            original = trainer.train_step

            def step() -> Any:
                report = original()
                if after_step is not None:
                    after_step(trainer)
                dist.barrier()
                return report

            trainer.train_step = step  # type: ignore[method-assign]
            try:
                trainer.run()
            finally:
                trainer.engine.destroy()
    except (SystemExit, LargedeError, RuntimeError) as error:
        lines.append(f"{type(error).__name__}: {error}")
    return lines


def test_what_cannot_be_read_in_place_of_a_wish_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stop_reason(tmp_path) == ""
    (tmp_path / STOP).mkdir()
    assert stop_reason(tmp_path) == "stop.json was put there"

    def away(path: Path) -> bytes:
        raise OSError(errno.ESTALE, "stale file handle")

    monkeypatch.setattr(Path, "read_bytes", away)
    assert stop_reason(tmp_path) == "", "a disk that is away asks nobody to stop"


def on_rank_0_at(step: int, act: Any) -> Any:
    return lambda trainer: act(trainer) if trainer.steps_done == step and dist.get_rank() == 0 else None


def fail(trainer: Trainer) -> None:
    if trainer.steps_done == 3:
        raise RuntimeError("the machine caught fire")


def lose_the_folder(trainer: Trainer) -> None:
    path = trainer.folder / LOCK
    path.write_text(path.read_text().replace('"token": "', '"token": "another'))
    trainer.life._claim.lost = True


def story(folder: str, world: MadeWorld) -> dict[str, Any]:
    path, answer = Path(folder), dict[str, Any]()
    command = f"pipe:cat {world.shards}/{{name}} # --token {SECRET}"
    recipe = recipe_for(world, path, "through", run__steps=4, data__shards=command)
    answer["through"] = run_with_life(recipe)
    stopped = recipe_for(world, path, "stopped", run__steps=4)
    ask = on_rank_0_at(1, lambda trainer: ask_to_stop(trainer.folder, "no progress", "a test", 1))
    answer["stopped"] = run_with_life(stopped, ask)
    answer["stopped state"] = read_run_state(path / "stopped")
    answer["still stopped"] = run_with_life(stopped)
    dist.barrier()
    if dist.get_rank() == 0:
        (path / "stopped" / STOP).unlink()
    dist.barrier()
    answer["let go on"] = run_with_life(stopped)
    failing = recipe_for(world, path, "failing", run__steps=4)
    answer["failing"] = run_with_life(failing, fail)
    lost = recipe_for(world, path, "lost", run__steps=4)
    answer["lost"] = run_with_life(lost, on_rank_0_at(1, lose_the_folder))
    answer["held"] = run_with_life(recipe_for(world, path, "held", run__steps=4))
    answer["refused"] = run_with_life(recipe_for(world, path, "through", run__steps=4, batch__queries=8))
    return answer


@pytest.fixture(scope="module")
def told(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("lives")
    held = Claim(folder / "held" / LOCK)
    held.take()  # by this process, which lives on the same machine
    answers = run_on_ranks(2, story, folder, str(folder), world)
    assert held.path.is_file() and not held.lost
    held.release()
    return folder, answers


def state(run: Path) -> str:
    said = read_run_state(run)
    return f"{life_of(run, said)} {said.step}/{said.steps} {said.why}".strip() if said else "nothing"


def test_a_run_that_ends_says_so_and_gives_its_folder_back(told: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = told
    assert state(folder / "through") == "finished 4/4"
    assert not (folder / "through" / LOCK).exists()


def test_a_command_that_gives_the_data_is_in_no_file_of_the_run(told: tuple[Path, list[dict[str, Any]]]) -> None:
    kept = {path: path.read_bytes() for path in (told[0] / "through").rglob("*") if path.is_file()}
    assert any(b"pipe: a command" in content for path, content in kept.items() if path.name == "state.json")
    assert [path for path, content in kept.items() if SECRET.encode() in content] == []


def test_a_run_that_is_asked_to_stop_saves_and_leaves_on_all_ranks(told: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, answers = told
    for answer in answers:
        assert answer["stopped"][-1] == (
            f"stopped after step 1: no progress; saved as {folder}/stopped/checkpoints/step-00000001"
        )
    said = answers[0]["stopped state"]
    assert (said.state, said.step, said.why) == ("stopped", 1, "no progress")


def test_a_stopped_run_says_why_it_does_not_go_on_and_how_it_would(told: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, answers = told
    assert "was stopped: no progress" in answers[0]["still stopped"][0]
    assert f"remove {folder / 'stopped' / STOP}" in answers[0]["still stopped"][0]
    assert [answer["still stopped"][-1] for answer in answers] == ["SystemExit: 0"] * 2
    assert any("continuing from" in line for line in answers[0]["let go on"])
    assert state(folder / "stopped") == "finished 4/4"


def test_a_run_that_fails_says_with_what(told: tuple[Path, list[dict[str, Any]]]) -> None:
    assert state(told[0] / "failing") == "failed 3/4 RuntimeError: the machine caught fire"


def test_a_second_run_in_a_folder_is_refused_on_all_ranks(told: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, answers = told
    for answer in answers:
        assert "is in use by process" in answer["held"][-1] and "give another --run.out" in answer["held"][-1]
    assert [path.name for path in (folder / "held").iterdir()] == []


def test_a_run_whose_folder_was_taken_leaves_without_touching_it(told: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, answers = told
    for answer in answers:
        assert "another run has taken" in answer["lost"][-1]
    assert json.loads((folder / "lost" / STATE).read_text())["state"] == "running"
    assert not list((folder / "lost" / "checkpoints").glob("step-*"))
    assert "another" in (folder / "lost" / LOCK).read_text()


def test_a_start_that_is_refused_leaves_the_word_of_the_run_before(told: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, answers = told
    assert "Error" in answers[0]["refused"][-1]
    assert state(folder / "through") == "finished 4/4"


def test_every_part_of_a_run_keeps_what_it_ran_with(told: tuple[Path, list[dict[str, Any]]]) -> None:
    run = told[0] / "stopped"
    parts = [json.loads((run / "parts" / name / "run.json").read_text()) for name in ("0001", "0002")]
    assert [part["from_step"] for part in parts] == [0, 1]
    assert parts[0]["started"] < parts[1]["started"] and parts[1]["begun"] == parts[0]["started"]
    assert json.loads((run / "run.json").read_text()) == parts[1]
    [host] = parts[0]["hosts"]
    assert host["ranks"] == 2 and "CPU cores" in host["hardware"]
    assert "DS_ACCELERATOR" in parts[0]["environment"]
    assert sorted(path.name for path in (run / "parts" / "0001").iterdir()) == [
        "changes.diff",
        "packages.txt",
        "recipe.yaml",
        "run.json",
    ]
    assert "torch==" in (run / "parts" / "0001" / "packages.txt").read_text()


def test_tensorboard_has_layout_hyper_parameters_and_text(told: tuple[Path, list[dict[str, Any]]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = EventAccumulator(str(told[0] / "through" / "tensorboard"))
    found.Reload()
    assert "custom_scalars__config__" in found.Tags()["tensors"]
    start = HParamsPluginData.FromString(
        found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info
    assert start.hparams["batch.queries"].number_value == 16
    assert start.hparams["loss.passage_to_query"].string_value == "yes"
    assert start.hparams["ranks"].number_value == 2
    assert b"temperature" in found.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0]


def test_a_run_of_another_machine_that_died_is_taken_over_and_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "SILENT_S", 3.0)
    monkeypatch.setattr("largede.training.run_life.SILENT_S", 3.0)
    monkeypatch.setattr("largede.training.run_life.LOOK_EVERY_S", 0.1)
    lines: list[str] = []
    holder_elsewhere(tmp_path / LOCK, 2.0)
    with RunLife(tmp_path, 5, lines.append) as life:
        life.begin(0)
    assert "is held by process" in lines[0] and "node7" in lines[0] and "at most for a sign of life" in lines[0]
    holder_elsewhere(tmp_path / LOCK, 2.0)
    beating = iter([100, 100, 101])
    monkeypatch.setattr("largede.training.run_life.touched", lambda path: next(beating))
    with pytest.raises(TrainingError, match="node7"), RunLife(tmp_path, 5, lines.append):
        raise AssertionError("two runs in one folder")


def test_a_part_begins_over_figures_and_folders_that_are_not_ours(tmp_path: Path) -> None:
    lines = [
        b'{"step": 1}',
        b"\xff\xfe",
        b"12",
        b'{"step": null}',
        b'{"loss": 1}',
        b'{"step": 2}',
        b'{"step": 3}',
        b'{"st',
    ]
    (tmp_path / "figures.jsonl").write_bytes(b"\n".join(lines))
    drop_later_figures(tmp_path / "figures.jsonl", 2)
    assert (tmp_path / "figures.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'
    (tmp_path / "parts" / "0001.bak").mkdir(parents=True)
    (tmp_path / "parts" / "0007").mkdir()
    write_part(tmp_path, Recipe(), {"started": 1.0})
    assert json.loads((tmp_path / "run.json").read_text())["part"] == 8


def test_the_last_word_on_a_run_stands_whenever_the_claim_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim's thread writes all the time; a state of its own reading must not replace a newer one."""
    monkeypatch.setattr(claims, "BEAT_S", 0.0005)
    for number in range(40):
        with RunLife(tmp_path, 200, lambda line: None) as life:
            for step in range(10):
                life.begin(step)
            if number % 2:
                life.stop("asked")
        said = read_run_state(tmp_path)
        assert said is not None and said.state == ("stopped" if number % 2 else "finished") and said.step == 9
        assert life._claim.trouble == ""
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_secrets_of_a_part_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from largede.runs.provenance import environment, provenance

    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth0")
    secret = "-".join(["hunter", "22"])  # not whole in this file: changes of it are kept too
    monkeypatch.setenv("NCCL_SECRET_TOKEN", secret)
    monkeypatch.setenv("DS_STORE", f"https://me:{secret}@host/x")
    command = f"train --model.tokenizer t5/v1_1-base --data.shards 'pipe:curl -H Authorization:Bearer {secret}xyz'"
    monkeypatch.setattr("sys.argv", ["largede", *shlex.split(command)])
    write_part(tmp_path, Recipe(), {**provenance(), "environment": environment(), "started": 1.0})
    kept = "".join(path.read_text() for path in (tmp_path / "parts" / "0001").iterdir())
    assert "eth0" in kept and "t5/v1_1-base" in kept and secret not in kept and "https://[hidden]@host/x" in kept


def test_a_state_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    from largede.errors import DataError

    for damaged in ('{"state": "running"}', "{", "12", ""):
        (tmp_path / STATE).write_text(damaged)
        with pytest.raises(DataError, match=r"state\.json cannot be read") as refused:
            read_run_state(tmp_path)
        assert refused.value.mend.startswith("remove state.json, and nothing else")


def test_a_damaged_state_hides_no_error_and_gives_way_to_the_next_word(tmp_path: Path) -> None:
    (tmp_path / STATE).write_text("{ half")
    with pytest.raises(TrainingError, match="the real error"), RunLife(tmp_path, 5, lambda line: None):
        raise TrainingError("the real error", expected="", mend="")
    assert state(tmp_path) == "failed 0/5 the real error"
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_a_disk_that_goes_away_hides_no_error(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(TrainingError, match="the real error"), RunLife(tmp_path / "run", 5, lines.append) as life:
        life.begin(1)
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        (tmp_path / "run").write_text("in the way")
        raise TrainingError("the real error", expected="", mend="")
    assert "could not be left in order" in lines[-1]


def test_what_looks_like_a_secret_is_hidden_and_the_rest_is_not() -> None:
    from largede.runs.redact import hide_secrets

    value = "".join(["pa55", "word9x"])
    for text in (
        f'api_key = "{value}"',
        f"os.environ['X_TOKEN'] = '{value}'",
        f'setenv("AWS_SECRET_ACCESS_KEY", "{value}")',
        f"--wandb.token {value}",
        f"curl -H 'Authorization: Bearer {value}'",
        f"s3://user:{value}@host/path",
        f"https://host/x?sig={value}&y=1",
        f"hf_{value}{value}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{value}\n-----END RSA PRIVATE KEY-----",
    ):
        assert value not in hide_secrets(text), text
    for text in (
        "chunk_tokens = 16384",
        "--model.tokenizer google-t5/t5-base",
        "https://host:8080/x",
        "max_tokens: 512",
    ):
        assert hide_secrets(text) == text


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, ("finished", "")),
        (SystemExit(75), ("stopped", "a signal")),
        (SystemExit(76), ("failed", "left with status 76")),
        (RankLost("rank 1 (node7, pid 5) has ended"), ("failed", "rank 1 (node7, pid 5) has ended")),
        (KeyboardInterrupt(), ("stopped", "interrupted")),
        (TrainingError("a loss of nan", expected="a number", mend="lower the rate"), ("failed", "a loss of nan")),
    ],
)
def test_how_a_run_ended(error: BaseException | None, state: tuple[str, str]) -> None:
    assert how_it_ended(error) == state
