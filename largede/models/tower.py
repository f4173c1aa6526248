"""One tower: tokens of a text in, one vector out.

Shapes: B sequences, L tokens, D embedding width.
"""

from typing import Any

from torch import Tensor, nn

from largede.models.pooling import Projection, masked_mean


class Tower(nn.Module):
    """Encoder stack, mean over real tokens, projection, and L2 normalisation when the similarity is cosine."""

    encoder: Any
    """A transformers encoder: a module with `config`, `get_input_embeddings` and `save_pretrained`."""

    def __init__(self, encoder: nn.Module, projection: Projection | None, *, normalize: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = projection
        self.normalize = normalize

    def forward(self, token_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Embeddings (B, D) in float32 of token ids (B, L) whose real tokens are 1 in `mask_BL`."""
        state_BLH = self.encoder(input_ids=token_BL, attention_mask=mask_BL).last_hidden_state
        embedding_BD = masked_mean(state_BLH, mask_BL)
        if self.projection is not None:
            embedding_BD = self.projection(embedding_BD)
        if self.normalize:
            embedding_BD = nn.functional.normalize(embedding_BD, dim=-1)
        return embedding_BD
