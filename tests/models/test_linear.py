"""oneDNN's linear layers give what nn.Linear gives, and stand where oneDNN is known to be no slower."""

from pathlib import Path

import numpy as np
import pytest
import torch
from published_folders import write_published
from torch import nn

from largede.models.linear import OneDnnLinear, has_onednn_form, use_onednn
from largede.models.published import load_tower
from largede.models.text_encoder import load_text_encoder

TEXTS = ["engine harbour", "the violin of a glacier in an orchard " * 5, "x"]
packable = pytest.mark.skipif(
    not has_onednn_form(nn.Linear(8, 8)), reason="this processor's linear layers stay torch's own"
)


@packable
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(33,), (1, 33), (0, 33), (2, 0, 33), (3, 5, 33), (2, 3, 4, 33), (700, 33)])
@pytest.mark.parametrize("bias", [True, False])
def test_onednn_gives_what_linear_gives(dtype: torch.dtype, shape: tuple[int, ...], bias: bool) -> None:
    linear = nn.Linear(33, 17, bias=bias).to(dtype)
    if not has_onednn_form(linear):
        pytest.skip("this processor has no bfloat16")
    state = torch.randn(shape).to(dtype)
    with torch.no_grad():
        expected, found = linear(state), OneDnnLinear(linear)(state)
    assert found.dtype == dtype and found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-6 if dtype == torch.float32 else 1e-2, rtol=1e-2)


@packable
def test_rows_that_are_not_next_to_each_other() -> None:
    linear = nn.Linear(33, 17)
    with torch.no_grad():
        for state in (torch.randn(33, 9).T, torch.randn(9, 66)[:, ::2], torch.randn(9, 5, 33).transpose(0, 1)):
            torch.testing.assert_close(OneDnnLinear(linear)(state), linear(state))


@packable
@pytest.mark.parametrize("family", ["bert", "t5"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_with_such_layers_gives_the_vectors_of_its_plain_twin(family: str, dtype: str, tmp_path: Path) -> None:
    folder = write_published(tmp_path / "model", family, [])
    encoder = load_text_encoder(folder, device="cpu", dtype=dtype)
    kinds = {type(module) for module in encoder.towers["query"].encoder.modules()}
    assert OneDnnLinear in kinds or dtype == "bfloat16"
    twin = load_tower(folder, torch.device("cpu"), getattr(torch, dtype)).tower
    found, expected = encoder.embed(TEXTS, "query", 64), []
    for text in TEXTS:
        ids = torch.tensor([encoder.prepare([text], "query", 64).tokens.tolist()])
        with torch.no_grad():
            expected.append(twin(ids, torch.ones_like(ids))[0].float().numpy())
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5 if dtype == "float32" else 2e-2)


@packable
def test_a_compiled_model_keeps_such_layers() -> None:
    plain = nn.Sequential(nn.Linear(33, 17), nn.GELU(), nn.Linear(17, 5))
    state = torch.randn(4, 33)
    with torch.no_grad():
        expected = plain(state)
        use_onednn(plain)
        assert [type(module) for module in plain] == [OneDnnLinear, nn.GELU, OneDnnLinear]
        torch.testing.assert_close(torch.compile(plain, backend="eager")(state), expected)


def test_what_is_no_plain_linear_layer_on_a_cpu_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Linear):
        pass

    others = [Own(4, 4), nn.Linear(4, 4, device="meta"), nn.Linear(4, 4, dtype=torch.float64), nn.Embedding(4, 4)]
    assert not any(map(has_onednn_form, others))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not has_onednn_form(nn.Linear(4, 4))


@packable
def test_every_tower_of_an_encoder_multiplies_so_unless_told_otherwise(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "model", "t5", [])
    for onednn in (True, False):
        encoder = load_text_encoder(folder, device="cpu", onednn=onednn)
        for tower in encoder.towers.values():
            assert any(isinstance(module, OneDnnLinear) for module in tower.encoder.modules()) == onednn
