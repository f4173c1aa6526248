"""How many parameters a model folder holds, from the headers of its weights alone."""

import json
import math
from pathlib import Path

_LONGEST_HEADER = 100_000_000
"""Bytes; the library that writes the files sets the same limit."""


def parameters_of(folder: Path) -> int | None:
    """The sum over all safetensors files of a folder and its parts; None where there is none, or one is damaged."""
    files = sorted(folder.rglob("*.safetensors"))
    found = [_parameters(path) for path in files]
    known = [count for count in found if count is not None]
    return sum(known) if known and len(known) == len(found) else None


def _parameters(path: Path) -> int | None:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= _LONGEST_HEADER else b""
    try:
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        return sum(math.prod(entry["shape"]) for entry in tensors.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
