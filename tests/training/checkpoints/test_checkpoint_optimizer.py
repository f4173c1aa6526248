"""Adafactor's state goes from any number of ranks, stage and grouping to any other and continues exactly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from optimizer_ranks import (
    MadeModel,
    made_engine,
    made_gradients,
    made_recipe,
    take_steps,
    trained_names,
    whole_masters,
)
from ranks import run_on_ranks
from test_adafactor import FACTORS, OFFLOADED, worst_difference

from largede.errors import CheckpointError
from largede.training.adafactor import PlainAdafactor
from largede.training.checkpoints.load import load_checkpoint
from largede.training.checkpoints.state import StreamPlace, read_state
from largede.training.checkpoints.write import save_checkpoint
from largede.training.optimizers import parameter_groups, set_learning_rate

SAVED_AT, END = 4, 8
LATER_FACTORS = {"vector": 3.0, **FACTORS}
NAME = f"step-{SAVED_AT:08d}"


def write(folder: str, stage: int, zero: dict[str, Any]) -> None:
    """Train to the middle with the factors and save."""
    recipe = made_recipe(Path(folder), stage, zero, optimizer__rate_factors=FACTORS)
    engine = made_engine(recipe)
    take_steps(engine, range(SAVED_AT))
    save_checkpoint(engine, recipe, SAVED_AT, Path(folder) / f"from-{stage}", StreamPlace("none"))
    engine.destroy()


def go_on(folder: str, source: int, stages: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """From the checkpoint of `source` to the end, at each of the stages, grouped otherwise than it was saved."""
    path = Path(folder) / f"from-{source}" / NAME
    ends = []
    for stage, zero in stages:
        recipe = made_recipe(Path(folder), stage, zero, optimizer__rate_factors=LATER_FACTORS)
        engine = made_engine(recipe)
        take_steps(engine, range(1))  # what is loaded must replace every trace of an earlier step
        load_checkpoint(engine, path, read_state(path))
        take_steps(engine, range(SAVED_AT, END))
        ends.append({name: tensor.tolist() for name, tensor in whole_masters(engine).items()})
        engine.destroy()
    return ends


def plain_end() -> dict[str, torch.Tensor]:
    """The plain twin in one go; its groups change where the others are saved."""
    model = MadeModel()
    optimizer = PlainAdafactor(parameter_groups(model, FACTORS), lr=0.02)
    for step in range(END):
        if step == SAVED_AT:
            optimizer.param_groups = PlainAdafactor(parameter_groups(model, LATER_FACTORS), lr=0.02).param_groups
        set_learning_rate(optimizer, 0.02)
        for name, gradient in made_gradients(step, trained_names(model)).items():
            getattr(model, name).grad = gradient
        optimizer.step()
    return {name: getattr(model, name).detach() for name in trained_names(model)}


def test_state_moves_between_ranks_stages_groupings_and_memories(tmp_path: Path) -> None:
    run_on_ranks(3, write, tmp_path, str(tmp_path), 3, OFFLOADED)
    run_on_ranks(2, write, tmp_path, str(tmp_path), 2, {})
    truth = plain_end()
    to_one: list[tuple[int, dict[str, Any]]] = [(0, {}), (3, OFFLOADED)]
    to_four: list[tuple[int, dict[str, Any]]] = [(1, {}), (2, OFFLOADED), (3, {})]
    for world, source, targets in ((1, 3, to_one), (4, 2, to_four)):
        ends = run_on_ranks(world, go_on, tmp_path, str(tmp_path), source, targets)[0]
        for (stage, zero), end in zip(targets, ends, strict=True):
            found = {name: torch.tensor(values) for name, values in end.items()}
            worst, name = worst_difference(found, truth)
            print(f"ZeRO-{source} -> W={world}, ZeRO-{stage}{' offloaded' if zero else ''}: {worst:.1e} of RMS")
            assert worst < 1e-6, (source, world, stage, name)


def freeze_and_lack(folder: str) -> dict[str, Any]:
    """Frozen at saving and trained at loading, and the other way; state files that lack something."""
    answers: dict[str, Any] = {}
    base = Path(folder)
    for factors, name in (({"projection": 0.0}, "frozen"), ({}, "trained")):
        recipe = made_recipe(base, 3, optimizer__rate_factors=factors)
        engine = made_engine(recipe)
        take_steps(engine, range(2))
        path = save_checkpoint(engine, recipe, 2, base / name, StreamPlace("none"))
        answers[f"{name} files"] = sorted(read_state(path).files)
        engine.destroy()
    engine = made_engine(made_recipe(base, 3))
    frozen = base / "frozen" / "step-00000002"
    answers["moments of a frozen parameter"] = error_of(engine, frozen)
    load_checkpoint(engine, frozen, read_state(frozen), weights_only=True)
    start = made_engine(made_recipe(base, 3, optimizer__rate_factors={"projection": 0.0}))
    answers["weights of a frozen parameter"] = torch.equal(
        whole_masters(engine)["projection"], start.module.projection.ds_tensor.view(140, 128)
    )
    trained = base / "trained" / "step-00000002"
    load_checkpoint(start, trained, read_state(trained))
    answers["now frozen"] = torch.isfinite(start.module.projection.ds_tensor).all().item()
    answers["no state"] = error_of(engine, trained, without="shared.safetensors")
    answers["no slices"] = error_of(engine, trained, without="slices-00000-of-00001.safetensors")
    answers["other threshold"] = error_of(made_engine(made_recipe(base, 3, optimizer__factor_from=500)), trained)
    answers["adamw"] = error_of(made_engine(made_recipe(base, 3, optimizer__name="adamw")), trained)
    return answers


def error_of(engine: Any, path: Path, without: str = "") -> str:
    state = read_state(path)
    files = {name: facts for name, facts in state.files.items() if name != without}
    try:
        load_checkpoint(engine, path, replace(state, files=files))
    except CheckpointError as error:
        return str(error)
    return "no error"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("frozen")
    return run_on_ranks(1, freeze_and_lack, folder, str(folder))[0]


def test_what_a_factor_of_zero_froze_is_kept_apart_and_can_be_trained_later(answers: dict[str, Any]) -> None:
    assert "frozen.safetensors" in answers["frozen files"]
    assert answers["weights of a frozen parameter"]
    assert answers["now frozen"]


def test_missing_state_is_an_error_with_its_name(answers: dict[str, Any]) -> None:
    frozen = answers["moments of a frozen parameter"]
    assert "has no optimizer state column/projection (2 are missing)" in frozen and "--run.start_from" in frozen
    assert "has no optimizer state" in answers["no state"]
    assert "holds 0 of" in answers["no slices"]
    assert "has no optimizer state full/" in answers["other threshold"]
    assert "has no optimizer state exp_avg/" in answers["adamw"]
