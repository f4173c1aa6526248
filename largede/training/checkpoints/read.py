"""Reading ranges of whole tensors out of a checkpoint, whoever wrote it."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from largede.errors import CheckpointError
from largede.models.weights import read_range
from largede.training.checkpoints.state import (
    CheckpointState,
)


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
