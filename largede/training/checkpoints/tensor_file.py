"""A safetensors file written and hashed in one pass over its bytes.

The library's own writer gives no checksum, so a checkpoint of many gigabytes would be written and then read again.
The bytes are the library's (a test compares them); reading is left to it.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from largede.files import no_room

PIECE = 8 << 20
"""Bytes hashed and written at a time: long enough that Python's lock is rarely asked for."""
ALIGNMENT = 8
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class TensorFile:
    """What one file is to hold: float32 tensors on any device, and texts for its header."""

    name: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def write_tensor_file(folder: Path, file: TensorFile) -> dict[str, Any]:
    """Write `folder/name` to the disk itself; gives its size and SHA-256.

    Raises:
        NoRoomError: the disk is full.
    """
    path, digest, size = folder / file.name, hashlib.sha256(), 0
    try:
        with path.open("wb") as stream:
            for piece in _pieces(file):
                digest.update(piece)
                stream.write(piece)
                size += len(piece)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise no_room(path, error) or error from None
    return {"bytes": size, "sha256": digest.hexdigest()}


def _pieces(file: TensorFile) -> Iterator[bytes | memoryview]:
    names = sorted(file.tensors)  # the library's order among tensors of one type
    yield _header(file, names)
    for name in names:
        content = _bytes_of(file.tensors[name])
        for start in range(0, len(content), PIECE):
            yield content[start : start + PIECE]


def _header(file: TensorFile, names: list[str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": file.metadata} if file.metadata else {}
    end = 0
    for name in names:
        tensor = file.tensors[name]
        if tensor.dtype != torch.float32:
            raise TypeError(f"{file.name}: {name} is {tensor.dtype}, and a checkpoint holds float32")
        start, end = end, end + FLOAT32_BYTES * tensor.numel()
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().view(-1)
    return memoryview(flat.numpy().data).cast("B") if len(flat) else memoryview(b"")
