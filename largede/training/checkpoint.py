"""Checkpoints that any number of ranks can write and any other number can read.

A checkpoint is a folder `step-00001000`:

    slices-00000-of-00002.safetensors   what rank 0 holds of every parameter: `master/NAME`, for AdamW its moments too
    shared.safetensors                  Adafactor's row and column vectors, the same on every rank
    frozen.safetensors                  parameters that are not trained
    state.json                          step, recipe, versions, size and SHA-256 of every file above, and its own

Each slice file says in its header where its slices stand in the whole parameter, so a reader takes from every file
just the range it needs. The folder is written under a temporary name and renamed when every rank's files are on disk;
`state.json` comes last. A folder without it, or with a file that differs from it, is not a checkpoint. Tensors are
safetensors and the rest is JSON: nothing in a checkpoint is ever unpickled.

There is no random state in it, because nothing in a run draws from one that lasts. The order of pairs is a function of
(data, recipe, step), first weights of (seed, name), and dropout is seeded anew at each step from (seed, step, rank). So
step, seed and skipped batches say it all, and on as many ranks every bit comes again. On another number of ranks other
units are dropped: each rank still draws from a seed of its own, so the masks are as independent and the expected
gradient is the same, but the losses are no longer those of the uninterrupted run, only of an equally good one.
"""

import json
import os
import shutil
from collections.abc import Container, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from largede.config.load import recipe_from_tree
from largede.config.recipe import Recipe
from largede.errors import CheckpointError, LargedeError
from largede.files import fingerprint_of, sha256_file, sync_folder, write_json
from largede.models.weights import read_range
from largede.runs.provenance import largede_version, library_versions
from largede.training.adafactor import ZeroAdafactor
from largede.training.collectives import all_or_none, any_over_ranks, group_device, objects_of_ranks, rank, world_size
from largede.training.fill import fill_engine
from largede.training.retention import FOLDER_PATTERN, Keep, keep_of, remove_all, retire
from largede.training.slices import FlatGroup, flat_groups
from largede.training.tensor_file import TensorFile, write_tensor_file

FORMAT = 1
STATE_FILE = "state.json"
CHECKSUM = "checksum"
"""In `state.json`, of all the rest of it."""


class OtherFormatError(CheckpointError):
    """A checkpoint that may be sound and that this largede does not understand."""


@dataclass(frozen=True)
class CheckpointState:
    """What is in `state.json`."""

    step: int
    optimizer_steps: int
    recipe: dict[str, Any]
    data_fingerprint: str
    parameters: dict[str, list[int]]
    versions: dict[str, str]
    files: dict[str, dict[str, Any]]
    tokenizer_fingerprint: str = ""
    skipped_batches: int = 0
    rewinds: int = 0
    format: int = FORMAT


@dataclass(frozen=True)
class StreamPlace:
    """What a run reads and how far it is: `skipped_batches` beyond its steps were left out by `rewinds` rewinds."""

    data_fingerprint: str
    tokenizer_fingerprint: str = ""
    skipped_batches: int = 0
    rewinds: int = 0


def save_checkpoint(engine: Any, recipe: Recipe, step: int, folder: Path, place: StreamPlace) -> Path:
    """Write `folder/step-…` with `step` steps done, before returning. Collective.

    The plain twin of `largede.training.saving`, which writes the same bytes while the run goes on.

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


def client_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The optimizer we gave to DeepSpeed, below its wrapper."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


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
        recipe=asdict(recipe),
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
    if final.exists():  # after a rewind
        os.replace(final, replaced)
    os.replace(temporary, final)
    sync_folder(final.parent)
    write_json(final.parent / "latest.json", {"checkpoint": final.name})
    doomed = retire(final.parent, final.name, keep)
    return [*doomed, replaced]


def read_state(checkpoint: Path) -> CheckpointState:
    """What a checkpoint folder says of itself.

    Raises:
        CheckpointError: no such folder, half-written, or of another format.
    """
    try:
        values = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        checksum = values.pop(CHECKSUM, None)
        if checksum not in (None, fingerprint_of(values)):  # None: written before there was one
            raise ValueError("it differs from what was written")
        refuse_other_format(checkpoint, values)
        state = CheckpointState(**values)
    except FileNotFoundError:
        raise CheckpointError(
            f"{checkpoint} is no checkpoint: it has no {STATE_FILE}",
            expected="a folder step-… of a run's checkpoints/, written to its end",
            mend="give an older step-… folder beside it",
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint / STATE_FILE} cannot be read: {error}",
            expected=f"format {FORMAT}",
            mend="use the checkpoint before it",
        ) from None
    return state


def refuse_other_format(checkpoint: Path, values: dict[str, Any]) -> None:
    """Raise for a checkpoint of a format that this largede does not know, whatever else its state.json holds."""
    written = values.get("format", FORMAT)
    if written != FORMAT:
        age = "a newer" if isinstance(written, int) and written > FORMAT else "another"
        raise OtherFormatError(
            f"{checkpoint} has format {written}, of {age} largede",
            expected=f"format {FORMAT}",
            mend="use the largede that wrote it",
        )


def damaged_files(checkpoint: Path, state: CheckpointState) -> list[str]:
    """Names of files that are missing or differ from what was written. Ranks share the work. Collective."""
    found = []
    for name in sorted(state.files)[rank() :: world_size()]:
        if not _is_as_written(checkpoint / name, state.files[name]):
            found.append(name)
    return [name for part in objects_of_ranks(found) for name in part]


def _is_as_written(path: Path, facts: dict[str, Any]) -> bool:
    try:
        return path.stat().st_size == facts["bytes"] and sha256_file(path) == facts["sha256"]
    except OSError:  # missing, or on a disk that gives it back no more
        return False


def sound_state(checkpoint: Path) -> CheckpointState:
    """What a checkpoint folder says of itself, when every file is as it was written. Collective.

    Raises:
        CheckpointError: no checkpoint there, or a damaged one.
    """
    state = read_state(checkpoint)
    damaged = damaged_files(checkpoint, state)
    if damaged:
        raise CheckpointError(
            f"{checkpoint} is damaged: {', '.join(damaged)}",
            expected="the files that were written",
            mend="use the checkpoint before it, or copy this one again",
        )
    return state


def sound_checkpoints(folder: Path) -> Iterator[tuple[Path, CheckpointState]]:
    """Undamaged checkpoints of a folder, newest first; says on rank 0 which it passes over. Collective."""
    # Rank 0's view of the folder counts: a shared file system may show it to others a moment later.
    for name in objects_of_ranks(sorted((p.name for p in folder.glob(FOLDER_PATTERN)), reverse=True))[0]:
        state, problem = None, ""
        try:
            state = read_state(folder / name)
        except CheckpointError as error:
            problem = error.given
        if not any_over_ranks(state is None, group_device()) and state is not None:
            damaged = damaged_files(folder / name, state)
            if not damaged:
                yield folder / name, state
                continue
            problem = f"damaged: {', '.join(damaged)}"
        if rank() == 0:
            print(f"checkpoint {name} is passed over: {problem or 'another rank cannot read it'}", flush=True)


class SliceReader:
    """Reads ranges of whole tensors out of the slice files of any number of ranks, touching only those ranges."""

    def __init__(self, checkpoint: Path, state: CheckpointState) -> None:
        self.checkpoint = checkpoint
        self.state = state
        self.parts: dict[str, list[tuple[str, int, int]]] = {}
        for name in state.files:
            if name.startswith("slices-"):
                with safe_open(checkpoint / name, framework="pt") as file:
                    for key, (start, length) in json.loads(file.metadata()["slices"]).items():
                        self.parts.setdefault(key, []).append((name, start, length))

    def read(self, key: str, start: int, length: int) -> Tensor:
        """Elements start .. start + length of the flattened tensor `key`, float32.

        Raises:
            CheckpointError: the files do not cover that range.
        """
        values = torch.empty(length)
        covered = 0
        for name, at, held in self.parts.get(key, []):
            first, last = max(start, at), min(start + length, at + held)
            if first < last:
                with safe_open(self.checkpoint / name, framework="pt") as file:
                    values[first - start : last - start] = file.get_slice(key)[first - at : last - at]
                covered += last - first
        if covered != length:
            raise CheckpointError(
                f"{self.checkpoint} holds {covered} of {length} numbers of {key}",
                expected="a checkpoint of the same model",
                mend="check that model.backbone and model.layout are those of the checkpoint",
            )
        return values

    def was_frozen(self, name: str) -> bool:
        return f"master/{name}" not in self.parts and name in self.whole_tensors("frozen.safetensors")

    def whole_parameter(self, name: str) -> Tensor:
        """A parameter in its shape, trained or frozen."""
        if self.was_frozen(name):
            return self.whole_tensor("frozen.safetensors", name)
        shape = self.state.parameters[name]
        return self.read(f"master/{name}", 0, torch.Size(shape).numel()).view(shape)

    def whole_tensors(self, file_name: str) -> set[str]:
        """Names in a file of tensors that are not cut; none if the checkpoint has no such file."""
        if file_name not in self.state.files:
            return set()
        with safe_open(self.checkpoint / file_name, framework="pt") as file:
            return set(file.keys())

    def whole_tensor(self, file_name: str, key: str) -> Tensor:
        with safe_open(self.checkpoint / file_name, framework="pt") as file:
            return file.get_tensor(key)


class CheckpointWeights:
    """The weights in a checkpoint as a source, also those that were frozen in the run that wrote them."""

    def __init__(self, reader: SliceReader) -> None:
        self.reader = reader

    def read(self, name: str, start: int, length: int) -> Tensor:
        if self.reader.was_frozen(name):
            shape = tuple(self.reader.state.parameters[name])
            return read_range(self.reader.checkpoint / "frozen.safetensors", name, shape, start, length)
        return self.reader.read(f"master/{name}", start, length)


def load_checkpoint(engine: Any, checkpoint: Path, state: CheckpointState, *, weights_only: bool = False) -> None:
    """Fill the engine from a checkpoint written by any number of ranks at any ZeRO stage. Collective.

    `weights_only`: the masters alone; optimizer moments and step count stay fresh (GTR's fine-tuning).

    Raises:
        CheckpointError: the checkpoint is of another model or optimizer.
    """
    refuse_other_model(engine, checkpoint, state)
    reader = SliceReader(checkpoint, state)
    fill_engine(engine, CheckpointWeights(reader))
    if not weights_only:
        _load_moments(engine, flat_groups(engine), reader)


def refuse_other_model(engine: Any, checkpoint: Path, state: CheckpointState) -> None:
    ours = {n: list(getattr(p, "ds_shape", p.shape)) for n, p in engine.module.named_parameters()}
    differing = sorted(set(_texts(ours)) ^ set(_texts(state.parameters)))
    if differing:
        raise CheckpointError(
            f"{checkpoint} is of another model; it differs in {differing[0]} ({len(differing)} differences)",
            expected="the parameters of the recipe's model",
            mend="set model.backbone, model.layout and model.embedding_dim as they were",
        )


def _texts(parameters: dict[str, list[int]]) -> list[str]:
    return [f"{name} {shape}" for name, shape in parameters.items()]


def _load_moments(engine: Any, groups: list[FlatGroup], reader: SliceReader) -> None:
    optimizer = client_optimizer(engine)
    if isinstance(optimizer, ZeroAdafactor):
        _load_adafactor(optimizer, reader)
        return
    refuse_missing(reader, "adamw", {f"exp_avg/{held.name}" for group in groups for held in group.slices}, reader.parts)
    for group in groups:
        state = optimizer.state[group.parameter]
        state["step"] = torch.tensor(float(reader.state.optimizer_steps))
        for kind in ("exp_avg", "exp_avg_sq"):
            state[kind] = torch.zeros_like(group.parameter)
            for held in group.slices:
                held.of(state[kind].view(-1)).copy_(reader.read(f"{kind}/{held.name}", held.start, held.length))


def _load_adafactor(optimizer: ZeroAdafactor, reader: SliceReader) -> None:
    wanted = {
        f"{kind}/{name}": t for name, moments in optimizer.moments.items() for kind, t in moments.tensors().items()
    }
    refuse_missing(reader, "adafactor", wanted, reader.whole_tensors("shared.safetensors"))
    for key, tensor in wanted.items():
        saved = reader.whole_tensor("shared.safetensors", key)
        if saved.shape != tensor.shape:
            raise CheckpointError(
                f"{reader.checkpoint} holds {key} of shape {tuple(saved.shape)}",
                expected=f"{tuple(tensor.shape)}",
                mend="use the checkpoint before it",
            )
        tensor.copy_(saved)
    optimizer.step_count = reader.state.optimizer_steps


def refuse_missing(reader: SliceReader, optimizer: str, wanted: Iterable[str], held: Container[str]) -> None:
    """Raise when the checkpoint lacks optimizer state: of another optimizer, or for parameters frozen at that time."""
    missing = sorted(key for key in wanted if key not in held)
    if missing:
        raise CheckpointError(
            f"{reader.checkpoint} has no optimizer state {missing[0]} ({len(missing)} are missing)",
            expected=f"a run with optimizer.name {optimizer}, its factor_from, and the same parameters trained",
            mend="restore those settings, or begin a run with --run.start_from this checkpoint",
        )


def recipe_of(state: CheckpointState) -> Recipe:
    return recipe_from_tree(state.recipe, where="the checkpoint's recipe")
