"""Bytes of activations: what one T5 layer keeps for its backward pass, and what is alive beside that for a moment.

Counted from transformers' T5 block as it stands (its layer norm works in float32 whatever the model does), per token.
Letters: D model width, I heads x head width, F feed-forward width, H heads, L tokens of a text, c bytes of a number in
the matrix products (2 in bf16 and under autocast, 4 in float32), h bytes of a hidden state.

| kernel    | where                  | kept by attention beside q, k, v and its output                              |
|-----------|------------------------|------------------------------------------------------------------------------|
| math      | padded, CPU            | the softmax (H L per token), all in float32, because a bias that learns rules |
|           |                        | the fused kernel out there                                                   |
| efficient | padded, GPU            | one bias-and-mask (H L per token) per layer, and a float32 number per head   |
| flex      | packed, GPU            | a float32 number per head                                                    |
| dense     | packed, CPU            | scores and softmax against the whole chunk (L is the chunk), float32         |

`math` is the one that the measurements on the CPU cover; `efficient` and `flex` follow from the same reading and wait
for a GPU; `dense` is a twin for small runs and only roughly counted.
"""

from dataclasses import dataclass

from largede.config.deepspeed import Precision
from largede.models.presets import T5Shape
from largede.training.plan.chunks import ChunkShape, Kernel
from largede.training.plan.shape import is_gated

SCORE_BYTES = {"math": 8, "efficient": 2, "flex": 0, "dense": 12}
"""Beside what is kept, bytes of scores that a layer holds for a moment, per head and pair of tokens."""


@dataclass(frozen=True)
class Activations:
    """Bytes per token of one encoder under one precision and kernel; `*_chunk` figures are those of a whole chunk."""

    encoder: T5Shape
    precision: Precision
    kernel: Kernel
    dropout: bool
    checkpointed: bool
    cast_weights: int
    """Elements of one layer's matrices; autocast keeps a bf16 copy of them beside the activations."""

    @property
    def c(self) -> int:
        return 4 if self.precision == "float32" else 2

    @property
    def h(self) -> int:
        return 2 if self.precision == "bf16" else 4

    @property
    def inner(self) -> int:
        return self.encoder.heads * self.encoder.d_kv

    @property
    def mask_bytes(self) -> int:
        """Of one element's dropout mask: a number on the CPU, a bool on a GPU."""
        return self.c if self.kernel in ("math", "dense") else 1

    def norm(self) -> float:
        """Kept by one layer norm: its input (twice where cast to float32), the normalised and the weighted states.

        Of the last, autocast keeps a cast copy instead, counted with the matrices that read it.
        """
        D = self.encoder.d_model
        return {"float32": 12 * D, "bf16": 10 * D, "autocast": 8 * D}[self.precision] + 4

    def attention(self, length: float) -> float:
        D, H, c = self.encoder.d_model, self.encoder.heads, self.c
        casts = 3 * 2 * D if self.precision == "autocast" else 0
        output_dropout = D * self.mask_bytes if self.dropout else 0
        kept = casts + output_dropout + c * self.inner
        if self.kernel == "dense":
            return kept + c * 3 * self.inner + (4 + 4 + c) * H * length
        if self.kernel == "math":
            dropped = 2 * 4 * H * length if self.dropout else 0
            return kept + 4 * 3 * self.inner + 4 * H * length + dropped
        kept += c * 3 * self.inner + 4 * H
        return kept + (c * H * length if self.kernel == "efficient" else 0)

    def feed_forward(self) -> float:
        D, F, c = self.encoder.d_model, self.encoder.d_ff, self.c
        casts = 2 * D * (2 if is_gated(self.encoder) else 1) if self.precision == "autocast" else 0
        # ReLU keeps its result; the gated GELU, spelt out in Python, keeps seven tensors of its width.
        kept = 7 * c * F if is_gated(self.encoder) else c * F
        if self.precision == "autocast":
            kept += 2 * F  # cast up for the output matrix's dtype, and down again by autocast
        if self.dropout:
            result = 0 if is_gated(self.encoder) or self.precision == "autocast" else c * F
            kept += result + F * self.mask_bytes + D * self.mask_bytes
        return casts + kept

    def layer(self, length: float) -> float:
        return 2 * self.norm() + self.attention(length) + self.feed_forward()

    def kept_chunk(self, chunk: ChunkShape) -> float:
        """Everything alive between forward and backward pass of a chunk."""
        T, n = chunk.tokens, self.encoder.layers
        ends = T * (self.norm() + (2 * self.encoder.d_model * self.mask_bytes if self.dropout else 0))
        if self.checkpointed:
            return n * T * self.encoder.d_model * self.h + ends + self.shared_chunk(chunk)
        return n * T * self.layer(chunk.length) + n * self.cast_bytes() + ends + self.shared_chunk(chunk)

    def cast_bytes(self) -> float:
        return 2 * self.cast_weights if self.precision == "autocast" else 0

    def shared_chunk(self, chunk: ChunkShape) -> float:
        """The position bias (H L L), which all layers share, and the distances it is looked up by."""
        if self.kernel in ("flex", "dense"):
            return 0
        return (self.h * self.encoder.heads + 9) * chunk.length**2

    def backward_chunk(self, chunk: ChunkShape) -> float:
        """Alive when the backward pass is at its fullest, the kept ones included: at the last layer's output, or, where
        texts are long, at its scores."""
        T, D, F, H = chunk.tokens, self.encoder.d_model, self.encoder.d_ff, self.encoder.heads
        recomputed = T * self.layer(chunk.length) + self.cast_bytes() if self.checkpointed else 0
        at_output = {"float32": 4 * (2 * D + F), "bf16": 2 * (2 * D + F), "autocast": 8 * D + 4 * F}[self.precision]
        scores = SCORE_BYTES[self.kernel] * H * chunk.length
        at_scores = scores + 3 * self.c * self.inner + self.h * D - self.norm() - self.feed_forward()
        return self.kept_chunk(chunk) + recomputed + T * max(at_output, at_scores)

    def forward_chunk(self, chunk: ChunkShape) -> float:
        """Alive at the fullest moment of a pass that keeps nothing."""
        T, D, F, H = chunk.tokens, self.encoder.d_model, self.encoder.d_ff, self.encoder.heads
        gate = 1 if is_gated(self.encoder) else 0
        in_feed_forward = {
            "float32": 4 * (4 * D + (2 + gate) * F),
            "bf16": 2 * (4 * D + (2 + gate) * F),
            "autocast": 16 * D + (6 + 2 * gate) * F,
        }[self.precision]
        scores = SCORE_BYTES[self.kernel] * H * chunk.length
        if self.dropout:
            in_feed_forward += (4 if self.kernel in ("math", "dense") else 1) * F
        in_attention = self.h * 3 * D + self.c * 4 * self.inner + scores
        return T * max(in_feed_forward, in_attention) + self.shared_chunk(chunk) + self.cast_bytes()
