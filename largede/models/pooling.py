"""From the states of tokens to one embedding: masked mean, projection, normalisation, all in float32.

Shapes: B sequences, L tokens, T tokens of a packed chunk, S its documents and the tail, H encoder width, D embedding
width.
"""

import contextlib

import torch
from torch import Tensor, nn


def masked_mean(state_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean over real tokens (B, H), float32. A sequence without a real token gives zeros, not NaN."""
    weight_BL1 = mask_BL.unsqueeze(-1).float()
    return (state_BLH.float() * weight_BL1).sum(1) / weight_BL1.sum(1).clamp_min(1.0)


def packed_mean(state_TH: Tensor, length_B: Tensor) -> Tensor:
    """Mean over the tokens of each document (B, H), float32; documents lie end to end, what follows them is left out.

    `segment_reduce` adds each document's tokens in order, without atomics, so the same tokens give the same bits.
    """
    tail_1 = len(state_TH) - length_B.sum(0, keepdim=True)
    # `unsafe` leaves out checks of the lengths that would wait for the GPU.
    sum_SH = torch.segment_reduce(state_TH.float(), "sum", lengths=torch.cat([length_B, tail_1]), unsafe=True)
    return sum_SH[:-1] / length_B.clamp_min(1).unsqueeze(-1)


class Projection(nn.Linear):
    """Linear map without bias to the embedding width, float32 arithmetic whatever the parameters are stored in."""

    def __init__(self, width: int, embedding_dim: int) -> None:
        super().__init__(width, embedding_dim, bias=False)

    def forward(self, pooled_BH: Tensor) -> Tensor:
        device = pooled_BH.device.type
        # The meta device, on which shapes are tried out, knows no autocast that could be off.
        with torch.autocast(device, enabled=False) if device != "meta" else contextlib.nullcontext():
            return nn.functional.linear(pooled_BH.float(), self.weight.float())
