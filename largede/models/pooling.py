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


def packed_first(state_TH: Tensor, length_B: Tensor) -> Tensor:
    """The first token's state of each document (B, H), float32; documents lie end to end."""
    return state_TH[length_B.cumsum(0) - length_B].float()


class Projection(nn.Linear):
    """Linear map without bias to the embedding width, float32 arithmetic whatever the parameters are stored in."""

    def __init__(self, width: int, embedding_dim: int) -> None:
        super().__init__(width, embedding_dim, bias=False)

    def forward(self, pooled_BH: Tensor) -> Tensor:
        with without_autocast(pooled_BH):
            return nn.functional.linear(pooled_BH.float(), self.weight.float())


class Dense(nn.Module):
    """sentence-transformers' Dense: a linear map and an activation, float32 arithmetic.

    The parts have its names, so that its files load: `linear`, `activation_function`, and `residual` where the input
    is added to the output through a map of its own.
    """

    def __init__(self, linear: nn.Linear, activation: nn.Module, *, adds_input: bool = False) -> None:
        super().__init__()
        self.linear = linear
        self.activation_function = activation
        self.adds_input = adds_input
        changes_width = linear.in_features != linear.out_features
        self.residual = (
            nn.Linear(linear.in_features, linear.out_features, bias=False)
            if adds_input and changes_width
            else nn.Identity()
        )

    def forward(self, input_BH: Tensor) -> Tensor:
        with without_autocast(input_BH):
            output_BD: Tensor = self.activation_function(self.linear(input_BH.float()))
            return output_BD + self.residual(input_BH.float()) if self.adds_input else output_BD


class Normalize(nn.Module):
    """Vectors of length one."""

    def forward(self, input_BD: Tensor) -> Tensor:
        return nn.functional.normalize(input_BD, dim=-1)


def without_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    device = tensor.device.type
    # The meta device, on which shapes are tried out, knows no autocast that could be off.
    return torch.autocast(device, enabled=False) if device != "meta" else contextlib.nullcontext()
