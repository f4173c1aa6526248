"""`--model` takes run folders and checkpoints: exported once, the same on every process of a launcher."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from batches_for_tests import small_recipe
from made_world import MadeWorld
from ranks import run_on_ranks

from largede.cli import main
from largede.config.load import with_settings
from largede.errors import CheckpointError, LargedeError, ModelError
from largede.evaluation.opened_model import open_any_model
from largede.models.text_encoder import load_text_encoder
from largede.retrieval.processes import Process
from largede.training.checkpoints.state import StreamPlace
from largede.training.checkpoints.write import save_checkpoint
from largede.training.construct import build_filled_engine
from largede.training.export import export_checkpoint

TEXTS = ["baba lulu", "a longer text " * 9]


def write_run(folder: str, world: MadeWorld) -> None:
    recipe = small_recipe(Path(folder), 1)
    recipe = with_settings(recipe, model__tokenizer=str(world.vocabulary), run__out=folder)
    engine = build_filled_engine(recipe)
    for step in (3, 7):
        save_checkpoint(engine, recipe, step, Path(folder) / "checkpoints", StreamPlace("abc"))
    engine.destroy()


@pytest.fixture(scope="module")
def made(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "base"
    folder.mkdir()
    run_on_ranks(1, write_run, folder.parent, str(folder), world)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "base"))


def test_nothing_is_written_into_a_model_folder(run: Path, tmp_path: Path) -> None:
    export_checkpoint(run, tmp_path / "model")
    with pytest.raises(ModelError, match="--out lies within the model folder"):
        open_any_model(tmp_path / "model", tmp_path / "model" / "results" / "work", device="cpu")
    assert open_any_model(tmp_path / "model", tmp_path / "results" / "work", device="cpu").name == "model"


def test_a_run_is_exported_once_and_used_again(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    model = open_any_model(run, tmp_path / "work", device="cpu", say=said.append)
    assert model.name == "base-step-00000007"
    assert len(said) == 1
    (folder,) = (tmp_path / "work").iterdir()
    written = (folder / "model.safetensors").stat().st_mtime_ns
    again = open_any_model(run, tmp_path / "work", device="cpu", say=said.append)
    assert again.fingerprint == model.fingerprint
    assert len(said) == 1
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    export_checkpoint(run, tmp_path / "exported")
    expected = load_text_encoder(tmp_path / "exported", device="cpu").embed(TEXTS, "query", 64)
    np.testing.assert_array_equal(model.load().embed(TEXTS, "query", 64), expected)


def test_a_checkpoint_and_an_exported_folder_are_models_too(run: Path, tmp_path: Path) -> None:
    one = open_any_model(run / "checkpoints" / "step-00000003", tmp_path / "work", device="cpu")
    assert one.name == "base-step-00000003"
    export_checkpoint(run, tmp_path / "exported")
    assert open_any_model(tmp_path / "exported", tmp_path / "unused", device="cpu").name == "exported"
    assert not (tmp_path / "unused").exists()


def test_a_new_checkpoint_is_exported_beside_the_old_one(run: Path, tmp_path: Path) -> None:
    newest = run / "checkpoints" / "step-00000007"
    newest.rename(tmp_path / newest.name)
    assert open_any_model(run, tmp_path / "work").name == "base-step-00000003"
    (tmp_path / newest.name).rename(newest)
    assert open_any_model(run, tmp_path / "work").name == "base-step-00000007"
    assert len(list((tmp_path / "work").iterdir())) == 2


def test_of_a_run_whose_newest_checkpoint_is_damaged_the_one_before_is_taken(run: Path, tmp_path: Path) -> None:
    weights = max((run / "checkpoints" / "step-00000007").glob("*.safetensors"), key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-8])
    for _ in range(2):
        assert open_any_model(run, tmp_path / "work").name == "base-step-00000003"
    with pytest.raises(CheckpointError):
        open_any_model(run / "checkpoints" / "step-00000007", tmp_path / "work")


@pytest.mark.parametrize("kind", ["nothing", "an empty folder", "a file"])
def test_anything_else_is_no_model(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    if kind == "an empty folder":
        path.mkdir()
    elif kind == "a file":
        path.write_text("model")
    with pytest.raises(ModelError, match="is no model|there is no model folder"):
        open_any_model(path, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_encode_takes_a_run_and_writes_pyserinis_folder(run: Path, tmp_path: Path) -> None:
    from beir_folder import write_collection

    words = ["encode", "--model", str(run), "--corpus", str(write_collection(tmp_path / "data"))]
    words += ["--out", str(tmp_path / "out"), "--pyserini", str(tmp_path / "faiss"), "--dtype", "bfloat16"]
    assert [main(words), main(words)] == [0, 0]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["dtype"] == "bfloat16"
    assert sorted(path.name for path in (tmp_path / "faiss").iterdir()) == ["docid", "index", "largede.json"]
    assert [path.name.rpartition(".")[0] for path in (tmp_path / "out.model").iterdir()] == ["base-step-00000007"]


def open_on_ranks(folder: str, out: str) -> None:
    process = Process(dist.get_rank(), dist.get_world_size())
    if process.is_first:
        time.sleep(1.0)  # the others have to wait for it
    try:
        said = open_any_model(Path(folder), Path(out) / "work", device="cpu", process=process).fingerprint
    except LargedeError as error:
        said = error.given
    (Path(out) / f"rank-{process.rank}").write_text(said)


@pytest.mark.slow
def test_all_processes_of_a_launcher_open_what_the_first_one_exported(run: Path, tmp_path: Path) -> None:
    run_on_ranks(2, open_on_ranks, tmp_path, str(run), str(tmp_path))
    (tmp_path / "store-2").unlink(missing_ok=True)  # where these two ranks met
    fingerprint = open_any_model(run, tmp_path / "work", device="cpu").fingerprint
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == [fingerprint, fingerprint]
    for path in run.glob("checkpoints/*/state.json"):
        path.write_text("{")
    run_on_ranks(2, open_on_ranks, tmp_path, str(run), str(tmp_path))
    said = [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "damaged" in said[0]
