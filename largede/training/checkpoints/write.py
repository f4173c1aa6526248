"""Writing a checkpoint: each rank its slices, then one name for all of them."""

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from largede.config.recipe import Recipe
from largede.errors import LargedeError
from largede.files import fingerprint_of, sync_folder, write_json
from largede.runs.provenance import largede_version, library_versions
from largede.runs.redact import shareable
from largede.training.adafactor import ZeroAdafactor
from largede.training.checkpoints.retention import Keep, keep_of, newest_is, remove_all, retire
from largede.training.checkpoints.state import (
    CHECKSUM,
    STATE_FILE,
    CheckpointState,
    StreamPlace,
)
from largede.training.checkpoints.tensor_file import TensorFile, write_tensor_file
from largede.training.collectives import all_or_none, objects_of_ranks, rank, world_size
from largede.training.optimizers import client_optimizer
from largede.training.slices import FlatGroup, flat_groups


def save_checkpoint(engine: Any, recipe: Recipe, step: int, folder: Path, place: StreamPlace) -> Path:
    """Write `folder/step-…` with `step` steps done, before returning. Collective.

    The plain twin of `largede.training.checkpoints.background`, which writes the same bytes while the run goes on.

    Raises:
        NoRoomError: the disk is full on a rank; the half-written folder is removed.
        MachineError: a rank cannot write.
    """
    temporary = begin_folder(folder, step)
    try:
        written = all_or_none(lambda: write_files(temporary, files_of_rank(engine)))
    except LargedeError:
        remove_half_written(temporary)
        raise
    remove_all(publish(temporary, state_of(engine, recipe, step, place), keep_of(recipe.run), written))
    return folder / f"step-{step:08d}"


Written = dict[str, dict[str, Any]]
"""`{file name: {"bytes": size, "sha256": checksum}}`."""


def begin_folder(folder: Path, step: int) -> Path:
    """Make the folder under whose temporary name the ranks write. Collective."""
    temporary = folder / f".step-{step:08d}.writing"

    def begin() -> None:
        if rank() == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

    all_or_none(begin)  # nobody writes before the folder is there
    return temporary


def write_files(folder: Path, files: list[TensorFile]) -> Written:
    """Write this rank's files to the disk itself. Not collective."""
    return {file.name: write_tensor_file(folder, file) for file in files}


def publish(temporary: Path, state: CheckpointState, keep: Keep, written: Written) -> list[Path]:
    """Give the folder its name when every rank's files are on disk. Collective.

    Gives what is left of the checkpoints that stay no longer, for rank 0 to remove.

    Raises:
        NoRoomError: not even the last small file has room; the half-written folder is removed.
        MachineError: the folder cannot be renamed.
    """
    files = {name: facts for part in objects_of_ranks(written) for name, facts in part.items()}

    def on_rank_0() -> list[Path]:
        return _give_name(temporary, replace(state, files=files), keep) if rank() == 0 else []

    try:
        return all_or_none(on_rank_0)  # nobody goes on before the folder has its name
    except LargedeError:
        remove_half_written(temporary)
        raise


def remove_half_written(temporary: Path) -> None:
    if rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)


def files_of_rank(engine: Any) -> list[TensorFile]:
    """What this rank writes: its slices, and on rank 0 what is not cut. Views where they can be. Collective."""
    groups = flat_groups(engine)
    frozen = frozen_parameters(engine)
    files = []
    if rank() == 0 or not groups[0].replicated:
        tensors, places = _held_tensors(engine, groups)
        name = f"slices-{rank():05d}-of-{1 if groups[0].replicated else world_size():05d}.safetensors"
        files.append(TensorFile(name, tensors, {"slices": json.dumps(places)}))
    if rank() == 0:
        files += [TensorFile("frozen.safetensors", frozen), TensorFile("shared.safetensors", _shared_tensors(engine))]
    return [file for file in files if file.tensors or file.name.startswith("slices-")]


def _held_tensors(engine: Any, groups: list[FlatGroup]) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    tensors, places = {}, {}
    for group in groups:
        for held in group.slices:
            if held.length:
                for kind, flat in _flat_tensors(engine, group).items():
                    key = f"{kind}/{held.name}"
                    tensors[key] = held.of(flat).detach()
                    places[key] = [held.start, held.length]
    return tensors, places


def _flat_tensors(engine: Any, group: FlatGroup) -> dict[str, Tensor]:
    """The tensors cut like the parameter: the master weights, and AdamW's two moments."""
    state = client_optimizer(engine).state.get(group.parameter, {})
    moments = {kind: state[kind].view(-1) for kind in ("exp_avg", "exp_avg_sq") if kind in state}
    return {"master": group.flat, **moments}


def _shared_tensors(engine: Any) -> dict[str, Tensor]:
    optimizer = client_optimizer(engine)
    return _shared_state(optimizer) if isinstance(optimizer, ZeroAdafactor) else {}


def _shared_state(optimizer: ZeroAdafactor) -> dict[str, Tensor]:
    return {f"{kind}/{name}": t for name, m in optimizer.moments.items() for kind, t in m.tensors().items()}


def frozen_parameters(engine: Any) -> dict[str, Tensor]:
    """Whole parameters that are not trained (layout ade-fte). Collective under ZeRO-3, which cuts them too."""
    frozen = {n: p for n, p in engine.module.named_parameters() if not p.requires_grad}
    if not frozen:
        return {}
    if engine.zero_optimization_stage() != 3:
        return {n: p.detach().float().cpu().clone() for n, p in frozen.items()}
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(frozen.values())):
        return {n: p.detach().float().cpu().clone() for n, p in frozen.items()}


def state_of(engine: Any, recipe: Recipe, step: int, place: StreamPlace) -> CheckpointState:
    """What `state.json` will say, its files apart."""
    optimizer = client_optimizer(engine)
    optimizer_steps = optimizer.step_count if isinstance(optimizer, ZeroAdafactor) else step
    return CheckpointState(
        step=step,
        optimizer_steps=optimizer_steps,
        recipe=asdict(shareable(recipe)),
        parameters={n: list(getattr(p, "ds_shape", p.shape)) for n, p in engine.module.named_parameters()},
        versions={"largede": largede_version(), **library_versions()},
        files={},
        **asdict(place),
    )


def _give_name(temporary: Path, state: CheckpointState, keep: Keep) -> list[Path]:
    values = asdict(state)
    write_json(temporary / STATE_FILE, {**values, CHECKSUM: fingerprint_of(values)})
    sync_folder(temporary)
    final = temporary.with_name(f"step-{state.step:08d}")
    replaced = final.with_name(f".{final.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    with newest_is(final):
        if final.exists():  # after a rewind
            os.replace(final, replaced)
        os.replace(temporary, final)
        sync_folder(final.parent)
    doomed = retire(final.parent, final.name, keep)
    return [*doomed, replaced]
