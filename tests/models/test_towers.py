"""Towers and layouts: what is shared, pooled and initialised."""

from pathlib import Path

import pytest
import torch
from made_world import MadeWorld

from largede.config.recipe import ModelConfig
from largede.errors import ModelError
from largede.models.build import build_dual_encoder, load_tokenizer
from largede.models.pooling import Projection, masked_mean
from largede.models.presets import PRESETS


def test_masked_mean_ignores_padding() -> None:
    state = torch.randn(3, 5, 4)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    expected = torch.stack([state[0, :3].mean(0), state[1, 0], torch.zeros(4)])
    torch.testing.assert_close(masked_mean(state, mask), expected)


def test_padding_does_not_change_an_embedding() -> None:
    model = build_dual_encoder(ModelConfig(backbone="smoke"))
    short = torch.tensor([[5, 6, 7]])
    padded = torch.tensor([[5, 6, 7, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0]])
    torch.testing.assert_close(
        model("query", short, torch.ones_like(short)), model("query", padded, mask), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("layout", "same_embedder", "same_projection", "frozen"),
    [
        ("sde", True, True, False),
        ("ade", False, False, False),
        ("ade-ste", True, False, False),
        ("ade-fte", True, False, True),
        ("ade-spl", False, True, False),
    ],
)
def test_layouts_share_what_the_paper_says(
    layout: str, same_embedder: bool, same_projection: bool, frozen: bool
) -> None:
    model = build_dual_encoder(ModelConfig(backbone="smoke", layout=layout))  # type: ignore[arg-type]
    query, passage = model.query_tower, model.passage_tower
    embedders = [tower.encoder.get_input_embeddings().weight for tower in (query, passage)]  # type: ignore[operator]
    assert (embedders[0] is embedders[1]) == same_embedder
    assert (query.projection is passage.projection) == same_projection
    assert embedders[0].requires_grad is not frozen
    tokens = torch.tensor([[5, 6, 7, 8]])
    sides = [model(side, tokens, torch.ones_like(tokens)) for side in ("query", "passage")]
    assert torch.equal(*sides) == (layout == "sde")


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build_dual_encoder(ModelConfig(backbone="smoke", seed=3)).state_dict()
    torch.manual_seed(2)
    second = build_dual_encoder(ModelConfig(backbone="smoke", seed=3)).state_dict()
    other = build_dual_encoder(ModelConfig(backbone="smoke", seed=4)).state_dict()
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


def test_projection_starts_with_unit_gain_and_computes_in_float32() -> None:
    projection = build_dual_encoder(ModelConfig(backbone="mini")).query_tower.projection
    assert isinstance(projection, Projection)
    assert abs(float(projection.weight.var()) * 256 - 1) < 0.02
    assert projection.bfloat16()(torch.randn(2, 256).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "millions"), [("gtr-base", 110), ("gtr-large", 335), ("gtr-xl", 1240), ("gtr-xxl", 4870)]
)
def test_presets_have_the_published_sizes(name: str, millions: int) -> None:
    """Counted on the meta device: no memory is taken."""
    from transformers import T5EncoderModel

    from largede.models.build import t5_config

    with torch.device("meta"):
        encoder = T5EncoderModel(t5_config(PRESETS[name]))
    assert abs(sum(p.numel() for p in encoder.parameters()) / 1e6 - millions) < 0.01 * millions


def test_a_tokenizer_wider_than_the_embedder_is_refused(world: MadeWorld, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="rows of the token embedder"):
        load_tokenizer(world.vocabulary, vocabulary=100)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(tmp_path / "nothing")


def test_a_backbone_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        build_dual_encoder(ModelConfig(backbone=str(tmp_path / "nothing")))
