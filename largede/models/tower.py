"""One tower: tokens of a text in, one vector out.

Shapes: B sequences, L tokens, T tokens of a packed chunk, H encoder width, D embedding width.
"""

from typing import Any

from torch import Tensor, nn

from largede.models.attention import Packing, pack_encoder
from largede.models.pooling import Projection, masked_mean, packed_mean


class Tower(nn.Module):
    """Encoder stack, mean over real tokens, projection, and L2 normalisation when the similarity is cosine."""

    encoder: Any
    """A transformers encoder: a module with `config`, `get_input_embeddings` and `save_pretrained`."""

    def __init__(self, encoder: nn.Module, projection: Projection | None, *, normalize: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = projection
        self.normalize = normalize
        self.packing: type[Packing] | None = None

    def use_packing(self, packing: type[Packing]) -> None:
        """From now on read packed chunks instead of padded ones."""
        pack_encoder(self.encoder)
        self.packing = packing

    def forward(self, *inputs: Tensor) -> Tensor:
        """Embeddings (B, D) in float32 of the inputs of a padded chunk, or of a packed one once packing is used."""
        pooled_BH = self.pool_packed(*inputs) if self.packing else self.pool_padded(*inputs)
        embedding_BD = pooled_BH if self.projection is None else self.projection(pooled_BH)
        return nn.functional.normalize(embedding_BD, dim=-1) if self.normalize else embedding_BD

    def pool_padded(self, token_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Mean state (B, H), float32, of token ids whose real tokens are 1 in `mask_BL`."""
        state_BLH = self.encoder(input_ids=token_BL, attention_mask=mask_BL).last_hidden_state
        return masked_mean(state_BLH, mask_BL)

    def pool_packed(self, token_T: Tensor, document_T: Tensor, length_B: Tensor) -> Tensor:
        """Mean state (B, H), float32, of the documents that lie end to end in `token_T`; see `PackedChunk`."""
        assert self.packing is not None
        # One mask for all layers. It travels as an argument, so a block recomputed for its gradient sees it too.
        packing = self.packing.of(document_T)
        state_1TH = self.encoder(input_ids=token_T[None], packing=packing).last_hidden_state
        return packed_mean(state_1TH[0], length_B)
