"""Exported checkpoints: the same as a model built whole and saved, in little memory, whole or not there at all."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.distributed as dist
from batches_for_tests import small_recipe
from made_world import MadeWorld
from ranks import run_on_ranks
from safetensors.torch import load_file, save_file

from largede.cli import main
from largede.config.load import with_settings
from largede.config.recipe import Layout, Recipe
from largede.errors import CheckpointError, MachineError, ModelError
from largede.files import fingerprint_of, sha256_file
from largede.models.build import build_dual_encoder
from largede.models.dual_encoder import SIDES
from largede.models.folder import origin_of
from largede.models.text_encoder import load_text_encoder
from largede.runs.evaluated import Evaluated, write_record
from largede.runs.files import READERS
from largede.training import export
from largede.training.checkpoints.read import SliceReader
from largede.training.checkpoints.retention import Keep, reading, remove_all, retire
from largede.training.checkpoints.state import CHECKSUM, STATE_FILE, StreamPlace, read_state, recipe_of
from largede.training.checkpoints.write import save_checkpoint
from largede.training.construct import build_filled_engine
from largede.training.export import export_checkpoint
from largede.training.model_card import model_card

LAYOUTS: tuple[str, ...] = get_args(Layout)
TEXTS = ["baba lulu", "a much longer text " * 9, "x", "bone dama kilo mura " * 30]
BULKY = {"d_model": 1024, "d_ff": 12288, "d_kv": 64, "num_heads": 2, "num_layers": 2, "vocab_size": 512}
"""A T5 of 52 million parameters, 197 MiB, its largest matrices 48 MiB."""


def write_checkpoints(folder: str, world: MadeWorld) -> None:
    """RUN/checkpoints/step-00000007 for each layout, with weights of its own, in slices of two ranks."""
    for layout in LAYOUTS:
        write_one(small_recipe(Path(folder), 2, model__layout=layout), Path(folder) / layout, world)
    bulky = small_recipe(Path(folder), 2, model__backbone=bulky_backbone(Path(folder)))
    write_one(bulky, Path(folder) / "bulky", world)


def bulky_backbone(folder: Path) -> str:
    from transformers import T5Config

    from largede.models.build import build_t5

    if dist.get_rank() == 0:
        build_t5(T5Config(**BULKY)).save_pretrained(folder / "backbone")
    dist.barrier()
    return str(folder / "backbone")


def write_one(recipe: Recipe, out: Path, world: MadeWorld) -> None:
    recipe = with_settings(recipe, model__tokenizer=str(world.vocabulary), run__out=str(out), model__seed=5)
    engine = build_filled_engine(recipe)
    save_checkpoint(engine, recipe, 7, out / "checkpoints", StreamPlace("abc"))
    engine.destroy()


@pytest.fixture(scope="module")
def runs(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run_on_ranks(2, write_checkpoints, folder, str(folder), world)
    return folder


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A run of one tower that a test may hurt."""
    return shutil.copytree(runs / "sde", tmp_path / "run")


def saved_whole(run: Path, out: Path) -> None:
    """The plain twin: the model built and filled in memory, saved by the libraries' own writers."""
    checkpoint = run / "checkpoints" / "step-00000007"
    state = read_state(checkpoint)
    model, reader = build_dual_encoder(recipe_of(state).model), SliceReader(checkpoint, state)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(reader.whole_parameter(name))
    for side in SIDES[: len(model.towers)]:
        folder = out / (side if len(model.towers) > 1 else "")
        model.tower(side).encoder.save_pretrained(folder)
        (folder / "2_Dense").mkdir()
        projection = model.tower(side).projection
        assert projection is not None
        save_file({"linear.weight": projection.weight.detach()}, folder / "2_Dense" / "model.safetensors")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_export_is_byte_for_byte_what_a_whole_model_saves(layout: str, runs: Path, tmp_path: Path) -> None:
    export_checkpoint(runs / layout, tmp_path / "streamed")
    saved_whole(runs / layout, tmp_path / "whole")
    whole = {p.relative_to(tmp_path / "whole"): p for p in (tmp_path / "whole").rglob("*") if p.is_file()}
    assert len(whole) == 3 * (1 if layout == "sde" else 2)
    for name, path in whole.items():
        if path.suffix == ".safetensors":
            expected, found = load_file(path), load_file(tmp_path / "streamed" / name)
            assert list(expected) == list(found)
            assert all(torch.equal(expected[key], found[key]) for key in expected)
        else:
            assert path.read_bytes() == (tmp_path / "streamed" / name).read_bytes()


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor for file in sorted(folder.glob("model*.safetensors")) for name, tensor in load_file(file).items()
    }


@pytest.mark.parametrize("layout", ["sde", "ade-fte"])
def test_a_model_in_several_files_loads_in_both_libraries(layout: str, runs: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import T5EncoderModel

    export_checkpoint(runs / layout, tmp_path / "one")
    export_checkpoint(runs / layout, tmp_path / "many", max_shard_gib=300_000 / 2**30)
    for tower in ("",) if layout == "sde" else SIDES:
        one, many = tmp_path / "one" / tower, tmp_path / "many" / tower
        sizes = [file.stat().st_size for file in many.glob("model-*.safetensors")]
        assert len(sizes) > 3 and max(sizes) < 310_000 and not (many / "model.safetensors").exists()
        index = json.loads((many / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(4 * t.numel() for t in weights_in(one).values())
        loaded = [T5EncoderModel.from_pretrained(folder).state_dict() for folder in (one, many)]
        assert all(torch.equal(tensor, loaded[1][name]) for name, tensor in loaded[0].items())
        vectors = [SentenceTransformer(str(folder), device="cpu").encode_query(TEXTS) for folder in (one, many)]
        assert np.array_equal(*vectors)
    ours = [load_text_encoder(tmp_path / name, device="cpu").embed(TEXTS, "passage", 64) for name in ("one", "many")]
    assert np.array_equal(*ours)


@pytest.mark.parametrize(("dtype", "apart"), [("bfloat16", 2e-2), ("float16", 3e-3)])
def test_a_smaller_dtype_is_the_weights_rounded_once(dtype: str, apart: float, runs: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    export_checkpoint(runs / "sde", tmp_path / "full")
    export_checkpoint(runs / "sde", tmp_path / "small", dtype=dtype)
    full, small = weights_in(tmp_path / "full"), weights_in(tmp_path / "small")
    assert all(torch.equal(tensor.to(getattr(torch, dtype)), small[name]) for name, tensor in full.items())
    assert json.loads((tmp_path / "small/config.json").read_text())["dtype"] == dtype
    exact = load_text_encoder(tmp_path / "full", device="cpu").embed(TEXTS, "query", 64)
    ours = load_text_encoder(tmp_path / "small", device="cpu").embed(TEXTS, "query", 64)
    theirs = SentenceTransformer(str(tmp_path / "small"), device="cpu").encode_query(TEXTS)
    assert np.abs(ours - exact).max() < apart
    theirs = theirs.astype(np.float32)  # computed in the small dtype from end to end
    assert (theirs * exact).sum(1).min() > 0.98


def test_a_number_too_large_for_the_dtype_is_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = export.CheckedWeights.read
    monkeypatch.setattr(export.CheckedWeights, "read", lambda *place: read(*place).fill_(1e5))
    with pytest.raises(ModelError, match=r"has numbers up to 1e\+05"):
        export_checkpoint(runs / "sde", tmp_path / "model", dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_not_exported(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next((run / "checkpoints/step-00000007").glob("slices-*"))
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    assert main(["export", str(run / "checkpoints/step-00000007"), str(tmp_path / "model")]) == 2
    said = capsys.readouterr().err
    assert f"is damaged: {file.name}" in said and "to mend:" in said
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def add_checkpoint(run: Path, step: int) -> Path:
    """The weights of step 7 as if they were those of `step`."""
    checkpoint = Path(shutil.copytree(run / "checkpoints" / "step-00000007", run / "checkpoints" / f"step-{step:08d}"))
    values = json.loads((checkpoint / STATE_FILE).read_text())
    del values[CHECKSUM]
    values["step"] = step
    (checkpoint / STATE_FILE).write_text(json.dumps(values | {CHECKSUM: fingerprint_of(values)}))
    return checkpoint


def evaluate_as(run: Path, step: int, value: float) -> None:
    name = f"step-{step:08d}"
    made = sha256_file(run / "checkpoints" / name / STATE_FILE)
    write_record(run, Evaluated(step, name, "ndcg@10", value, {}, made, 0.0))


def said_by_export(capsys: pytest.CaptureFixture[str], *words: Path | str) -> str:
    status = main(["export", *map(str, words)])
    said = capsys.readouterr()
    assert (status == 0) == (said.err == "")
    return said.out + said.err


def test_an_export_of_before_gives_way_to_another_checkpoint_and_only_to_that(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    assert f"exported {run}/checkpoints/step-00000007 to {model}" in said_by_export(capsys, run, model, "--again")
    before = model.stat().st_ino
    assert "holds" in said_by_export(capsys, run, model, "--again") and model.stat().st_ino == before
    add_checkpoint(run, 9)
    assert "already exists" in said_by_export(capsys, run, model) and model.stat().st_ino == before
    assert "exported" in said_by_export(capsys, run, model, "--again")
    assert origin_of(model)["checkpoint"] == "step-00000009" and "9 of" in (model / "README.md").read_text()
    assert "exported" in said_by_export(capsys, run, model, "--again", "--dtype", "bfloat16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "run"]


def test_a_folder_of_something_else_never_gives_way(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").write_text("years of work")
    assert "is no model folder" in said_by_export(capsys, run, tmp_path / "model", "--again")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["thesis.tex"]


def test_an_export_that_fails_leaves_the_one_before(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_checkpoint(run, tmp_path / "model")
    before = (tmp_path / "model" / "largede.json").read_bytes()
    add_checkpoint(run, 9)
    replace, model = os.replace, tmp_path / "model"

    def failing(source: Path, target: Path) -> None:
        if Path(target) == model and Path(source).name.endswith(".partial"):
            raise PermissionError(errno.EPERM, "not allowed", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(PermissionError):
        export_checkpoint(run, model, again=True)
    assert (model / "largede.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "run"]


def test_the_run_does_not_remove_a_checkpoint_that_is_exported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def amid_the_export(*words: Any) -> str:
        newer = add_checkpoint(run, 9)
        remove_all(retire(newer.parent, newer.name, Keep(1)))
        return model_card(*words)

    monkeypatch.setattr(export, "model_card", amid_the_export)
    assert export_checkpoint(run, tmp_path / "model").name == "step-00000007"
    assert (tmp_path / "model" / "model.safetensors").is_file() and not (run / READERS).exists()


def test_a_checkpoint_that_was_removed_before_it_is_read_gives_way_to_the_newest(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(checkpoint: Path) -> Any:
        if checkpoint.name == "step-00000007":
            add_checkpoint(run, 9)
            shutil.rmtree(checkpoint)
        return reading(checkpoint)

    monkeypatch.setattr(export, "reading", too_late)
    assert export_checkpoint(run, tmp_path / "model").name == "step-00000009"


def test_a_checkpoint_that_goes_while_it_is_exported_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def goes(*words: Any) -> str:
        card = model_card(*words)
        next((run / "checkpoints" / "step-00000007").glob("slices-*")).unlink()
        return card

    monkeypatch.setattr(export, "model_card", goes)
    with pytest.raises(CheckpointError, match="step-00000007 was whole and cannot be read any more"):
        export_checkpoint(run, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_best_checkpoint_that_is_left_is_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    (run / "state.json").write_text("{}")  # a run has one of its own, as a checkpoint has
    assert "was evaluated" in said_by_export(capsys, run, model, "--best") and not model.exists()
    for step, value in ((9, 0.5), (11, 0.7), (12, 0.6)):
        add_checkpoint(run, step)
        evaluate_as(run, step, value)
    evaluate_as(run, 7, 0.4)
    assert "step-00000011 to" in said_by_export(capsys, run, model, "--best")
    one = run / "checkpoints" / "step-00000011"
    assert f"give {run}, or leave out --best" in said_by_export(capsys, one, tmp_path / "other", "--best")
    shutil.rmtree(one)
    said = said_by_export(capsys, run, model, "--best", "--again")
    assert "step-00000011, the best, is gone" in said and "step-00000012 to" in said
    for step in (7, 9, 12):  # trained again: no longer what was evaluated
        state = run / "checkpoints" / f"step-{step:08d}" / STATE_FILE
        state.write_text(state.read_text() + " ")
    add_checkpoint(run, 13)
    assert "none that was evaluated is left" in said_by_export(capsys, run, model, "--best", "--again")
    assert origin_of(model)["checkpoint"] == "step-00000013", "a script that asks for the best gets a model"


def test_a_checkpoint_that_goes_away_meanwhile_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = export.CheckedWeights.read, []

    def vanishing(self: Any, *place: Any) -> torch.Tensor:
        calls.append(place)
        if len(calls) == 5:
            shutil.rmtree(run / "checkpoints")
        return read(self, *place)

    monkeypatch.setattr(export.CheckedWeights, "read", vanishing)
    with pytest.raises(CheckpointError, match="cannot be read any more"):
        export_checkpoint(run, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_without_room_nothing_is_begun(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(MachineError, match="are free there"):
        export_checkpoint(run, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_another_backbone_under_the_old_name_is_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "recipe_of", lambda state: with_settings(recipe_of(state), model__layers=1))
    with pytest.raises(CheckpointError, match=r"block.1.*parameters differ"):
        export_checkpoint(runs / "sde", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


EXPORT_AND_MEASURE = """
import sys
from pathlib import Path
from largede.training.export import export_checkpoint

def peak_kib():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

small, bulky, out = map(Path, sys.argv[1:])
export_checkpoint(small, out / "small")
before = peak_kib()
export_checkpoint(bulky, out / "large", max_shard_gib=52 / 1024)
print("MORE", (peak_kib() - before) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_is_less_than_one_file_however_large_the_model(runs: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", EXPORT_AND_MEASURE, str(runs / "sde"), str(runs / "bulky"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    more_mib = float(done.stdout.split("MORE")[1])
    sizes = [file.stat().st_size / 2**20 for file in (tmp_path / "large").glob("model-*.safetensors")]
    print(f"{more_mib:.0f} MiB more for {sum(sizes):.0f} MiB in files of at most {max(sizes):.0f} MiB")
    assert len(sizes) >= 4 and 48 < max(sizes) < 53
    assert more_mib < 44
