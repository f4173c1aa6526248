"""Our safetensors files are the library's, byte for byte."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from largede.training.checkpoints import tensor_file
from largede.training.checkpoints.host_copy import HostBlock
from largede.training.checkpoints.tensor_file import TensorFile, write_tensor_file


def made_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"z/last": (3, 5), "a": (7,), "B": (1,), "ünï": (2, 2, 2), "none of it": (0,), "large": (513, 1025)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tensors["across"] = torch.arange(12.0).view(3, 4).T
    return tensors


@pytest.mark.parametrize("piece", [8 << 20, 1000])
def test_bytes_and_checksum_are_those_of_the_library(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_file, "PIECE", piece)
    tensors, metadata = made_tensors(), {"slices": '{"a": [0, 7]}'}
    facts = write_tensor_file(tmp_path, TensorFile("ours", tensors, metadata))
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "theirs", metadata=metadata)
    content = (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "ours").read_bytes() == content
    assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_tensor_file(tmp_path, TensorFile("empty", {}))
    assert load_file(tmp_path / "empty") == {}


def test_other_numbers_than_float32_are_a_defect(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a is torch.bfloat16"):
        write_tensor_file(tmp_path, TensorFile("x", {"a": torch.zeros(2, dtype=torch.bfloat16)}))


def test_a_copy_does_not_follow_the_original_and_its_block_is_used_again() -> None:
    block, tensors = HostBlock(), made_tensors()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    [copied] = block.copy_of([TensorFile("x", tensors)])
    for tensor in tensors.values():
        tensor.add_(1)
    assert all(torch.equal(copied.tensors[name], tensor) for name, tensor in before.items())
    place = block.block.data_ptr()
    [smaller] = block.copy_of([TensorFile("x", {"a": tensors["a"]})])
    assert block.block.data_ptr() == place and torch.equal(smaller.tensors["a"], tensors["a"])
    assert block.copy_of([]) == []
