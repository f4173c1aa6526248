"""A checkpoint into an engine, on any number of ranks and at any ZeRO stage."""

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import torch

from largede.errors import CheckpointError
from largede.training.adafactor import ZeroAdafactor
from largede.training.checkpoints.read import CheckpointWeights, SliceReader
from largede.training.checkpoints.state import CheckpointState
from largede.training.fill import fill_engine
from largede.training.optimizers import client_optimizer
from largede.training.slices import FlatGroup, flat_groups


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
