"""Weights into safetensors files, a range at a time: as many files as a limit asks for, and an index over them.

safetensors' own writer takes a file's tensors all at once. The format is simple enough to be written as a stream: eight
bytes with the length of a JSON header, the header, and the numbers of each tensor where the header says. So what is
held in memory is one piece, whatever the size of a tensor, of a file or of the model.

The names are those that transformers looks for: `model.safetensors`, or `model-00001-of-00003.safetensors` and on with
`model.safetensors.index.json`.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from largede.errors import ModelError
from largede.files import write_json, writing
from largede.models.weights import WeightSource

PIECE_NUMBERS = 2**20
"""Numbers read, converted and written at a time: 4 MiB in float32."""


@dataclass(frozen=True)
class StoredKind:
    """A dtype by torch's name and by that in a header."""

    dtype: torch.dtype
    code: str


KINDS = {
    "float32": StoredKind(torch.float32, "F32"),
    "bfloat16": StoredKind(torch.bfloat16, "BF16"),
    "float16": StoredKind(torch.float16, "F16"),
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file: its name there, its name at the source of weights, and its shape."""

    name: str
    source_name: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class WeightWriter:
    """Writes tensors of `source`, which gives float32, as `dtype`; tells `wrote` the bytes of every piece."""

    source: WeightSource
    dtype: str
    wrote: Callable[[int], None]

    def write_sharded(self, folder: Path, tensors: Sequence[StoredTensor], max_bytes: int) -> None:
        """Write files of at most `max_bytes` of numbers each, or of one tensor that is larger, and their index.

        Raises:
            ModelError: a number is too large for the dtype.
        """
        shards = list(self._shards(sorted(tensors, key=lambda tensor: tensor.name), max_bytes))
        if len(shards) == 1:
            self.write_file(folder / "model.safetensors", shards[0])
            return
        names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
        for name, shard in zip(names, shards, strict=True):
            self.write_file(folder / name, shard)
        total = sum(tensor.numel for tensor in tensors)
        place = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        metadata = {"total_parameters": total, "total_size": total * self._width}
        write_json(folder / "model.safetensors.index.json", {"metadata": metadata, "weight_map": place})

    def write_file(self, path: Path, tensors: Sequence[StoredTensor]) -> None:
        """Write one file with the tensors in the order given. Raises ModelError like `write_sharded`."""
        with writing(path) as stream:
            header = self._header(tensors)
            stream.write(len(header).to_bytes(8, "little") + header)
            for tensor in tensors:
                self._write_numbers(stream, tensor)

    @property
    def _width(self) -> int:
        return KINDS[self.dtype].dtype.itemsize

    def _shards(self, tensors: Sequence[StoredTensor], max_bytes: int) -> Iterator[list[StoredTensor]]:
        shard: list[StoredTensor] = []
        filled = 0
        for tensor in tensors:
            size = tensor.numel * self._width
            if shard and filled + size > max_bytes:
                yield shard
                shard, filled = [], 0
            shard.append(tensor)
            filled += size
        yield shard

    def _header(self, tensors: Sequence[StoredTensor]) -> bytes:
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for tensor in tensors:
            start, end = end, end + tensor.numel * self._width
            entries[tensor.name] = {
                "dtype": KINDS[self.dtype].code,
                "shape": list(tensor.shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        return text + b" " * (-len(text) % 8)  # numbers begin at a multiple of eight, as readers that map files expect

    def _write_numbers(self, stream: IO[bytes], tensor: StoredTensor) -> None:
        for start in range(0, tensor.numel, PIECE_NUMBERS):
            length = min(PIECE_NUMBERS, tensor.numel - start)
            values = self._converted(self.source.read(tensor.source_name, start, length), tensor)
            stream.write(values.view(torch.uint8).numpy().data)
            self.wrote(length * self._width)

    def _converted(self, values: Tensor, tensor: StoredTensor) -> Tensor:
        converted = values.to(KINDS[self.dtype].dtype).contiguous()
        if self.dtype == "float16" and not torch.isfinite(converted).all():
            raise ModelError(
                f"{tensor.name} has numbers up to {float(values.abs().max()):.3g}",
                expected=f"numbers up to {torch.finfo(torch.float16).max:.0f}, the largest of float16",
                mend="choose bfloat16 or float32",
            )
        return converted


class HeldWeights:
    """The weights of a model that is held whole, as a source."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.parameters = dict(model.named_parameters())

    def read(self, name: str, start: int, length: int) -> Tensor:
        return self.parameters[name].detach().flatten()[start : start + length].float()
