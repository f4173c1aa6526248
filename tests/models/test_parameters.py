"""Parameters are counted without reading weights."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from largede.models.parameters import parameters_of


def test_all_tensors_of_all_parts_count(tmp_path: Path) -> None:
    (tmp_path / "2_Dense").mkdir()
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(())}, tmp_path / "model.safetensors", {"format": "pt"})
    save_file({"c": torch.zeros(5, dtype=torch.float16)}, tmp_path / "2_Dense" / "model.safetensors")
    assert parameters_of(tmp_path) == 12 + 1 + 5


def test_it_is_unknown_without_weights_or_with_damaged_ones(tmp_path: Path) -> None:
    assert parameters_of(tmp_path) is None
    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    for content in (b"", b"\xff" * 20, b"\x04" + bytes(7) + b"[1]]", b"\x0c" + bytes(7) + b'{"a": {"x"}}'):
        (tmp_path / "other.safetensors").write_bytes(content)
        assert parameters_of(tmp_path) is None
