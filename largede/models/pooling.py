"""From the states of tokens to one embedding: masked mean, projection, normalisation, all in float32.

Shapes: B sequences, L tokens, H encoder width, D embedding width.
"""

import torch
from torch import Tensor, nn


def masked_mean(state_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean over real tokens (B, H), float32. A sequence without a real token gives zeros, not NaN."""
    weight_BL1 = mask_BL.unsqueeze(-1).float()
    return (state_BLH.float() * weight_BL1).sum(1) / weight_BL1.sum(1).clamp_min(1.0)


class Projection(nn.Linear):
    """Linear map without bias to the embedding width, float32 arithmetic whatever the parameters are stored in."""

    def __init__(self, width: int, embedding_dim: int) -> None:
        super().__init__(width, embedding_dim, bias=False)

    def forward(self, pooled_BH: Tensor) -> Tensor:
        with torch.autocast(pooled_BH.device.type, enabled=False):
            return nn.functional.linear(pooled_BH.float(), self.weight.float())
