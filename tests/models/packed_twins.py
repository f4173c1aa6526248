"""Padded and packed attention side by side: made texts, towers at a preset's widths, and what each path gives.

The tests on the CPU and those on a GPU share it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex

from largede.models.attention import FlexPacking, Packing, compiled_flex
from largede.models.dual_encoder import DualEncoder
from largede.models.pooling import Projection
from largede.models.presets import PRESETS
from largede.models.tower import Tower
from largede.streams.chunks import PackedChunk, PaddedChunk, TokenRows, make_chunks, make_packed_chunks

LENGTHS = (150, 1, 64, 33, 128, 7, 2, 90)
"""Past T5's last exact bucket and its farthest distance, one token, and a whole tile."""
BUDGET = 640


def made_texts(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> TokenRows:
    generator = np.random.default_rng(seed)
    return TokenRows.of([generator.integers(3, 500, length).tolist() for length in lengths])


def tower_of(preset: str, *, layers: int = 2, dropout: float = 0.0) -> Tower:
    """A preset's width and heads, few layers, a small feed-forward and vocabulary: attention is what is compared.

    The relative bias is drawn thirty times wider than T5 does, about as wide as trained ones are, so that a bias in the
    wrong place shows.
    """
    from transformers import T5EncoderModel

    from largede.models.build import t5_config, with_recipe

    torch.manual_seed(0)
    shape = replace(PRESETS[preset], layers=layers, d_ff=64, vocabulary=512)
    encoder = T5EncoderModel(with_recipe(t5_config(shape), dropout, None))
    for module in encoder.modules():
        if hasattr(module, "relative_attention_bias"):
            torch.nn.init.normal_(module.relative_attention_bias.weight)
    return Tower(encoder, Projection(shape.d_model, 32), normalize=False)


def set_padded(tower: Tower, how: str) -> None:
    for module in tower.encoder.modules():
        vars(module).pop("compute_bias", None)
        if hasattr(module, "set_attn_implementation"):
            module.set_attn_implementation(how)


@contextmanager
def attending(tower: Tower, how: str | type[Packing]) -> Iterator[None]:
    """The same weights under padded `eager` or `sdpa` attention, or under a packing; padded SDPA again afterwards."""
    if isinstance(how, str):
        set_padded(tower, how)
    else:
        tower.use_packing(how)
    try:
        yield
    finally:
        tower.packing = None
        set_padded(tower, "sdpa")


def whole(tower: Tower, texts: TokenRows) -> PaddedChunk | PackedChunk:
    """All texts as the one chunk that the tower's attention reads."""
    [chunk] = make_packed_chunks(texts, BUDGET) if tower.packing else make_chunks(texts, 10**9)
    return chunk.to(next(tower.parameters()).device)


def embedded(tower: Tower, how: str | type[Packing], texts: TokenRows) -> Tensor:
    """Embeddings in the order of the texts, by one path."""
    with attending(tower, how):
        chunk = whole(tower, texts)
        embedding_BD = tower(*chunk.inputs)
    return torch.empty_like(embedding_BD).index_copy(0, chunk.rows, embedding_BD)


def gradients(
    tower: Tower, how: str | type[Packing], texts: TokenRows, *, checkpointed: bool = False
) -> dict[str, Tensor]:
    """Gradient of every parameter for a fixed random direction of the embeddings."""
    tower.zero_grad()
    tower.encoder.train()
    with attending(tower, how):
        if checkpointed:
            DualEncoder(tower, tower, "sde").enable_activation_checkpointing()
        chunk = whole(tower, texts)
        embedding_BD = tower(*chunk.inputs)
        direction_BD = torch.randn(len(texts), embedding_BD.shape[1], generator=torch.Generator().manual_seed(1))
        (embedding_BD * direction_BD.to(embedding_BD.device)[chunk.rows]).sum().backward()
    for module in tower.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False
    return {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}


def error(ours: Tensor, truth: Tensor) -> float:
    """Relative error; infinite where it would be no number, because no number compares as an error."""
    found = float((ours.double() - truth.double()).norm() / truth.double().norm())
    return found if math.isfinite(found) else math.inf


def worst(ours: dict[str, Tensor], truth: dict[str, Tensor]) -> tuple[float, str]:
    assert set(ours) == set(truth)
    return max((error(ours[name], g), name) for name, g in truth.items())


class TracedFlex(FlexPacking):
    """FlexAttention traced and differentiated as for a GPU, but run by plain operations instead of a kernel."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, table: Tensor, scale: float) -> Tensor:
        return compiled_flex("aot_eager")(query, key, value, table, self.mask, scale)


@contextmanager
def flex_gradients_on_cpu() -> Iterator[None]:
    """Torch refuses FlexAttention on CPU tensors that want a gradient for want of a kernel; its plain one is there."""
    check, torch_flex._validate_device = torch_flex._validate_device, lambda query, key, value: None
    try:
        yield
    finally:
        torch_flex._validate_device = check
