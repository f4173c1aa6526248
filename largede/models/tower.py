"""One tower: tokens of a text in, one vector out.

Shapes: B sequences, L tokens, T tokens of a packed chunk, H encoder width, D embedding width.
"""

from typing import Any, Literal

from torch import Tensor, nn

from largede.models.attention import Packing, pack_encoder
from largede.models.pooling import Projection, masked_mean, packed_first, packed_mean

Pooling = Literal["mean", "cls"]


class Tower(nn.Module):
    """Encoder stack, mean over real tokens, projection, and L2 normalisation when the similarity is cosine."""

    encoder: Any
    """A transformers encoder: a module with `config`, `get_input_embeddings` and `save_pretrained`."""
    pooling: Pooling = "mean"
    """Towers that we train pool by the mean; a published one may take the first token's state (cls)."""

    def __init__(self, encoder: nn.Module, projection: Projection | None, *, normalize: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = projection
        self.normalize = normalize
        self.packing: type[Packing] | None = None

    @property
    def dimension(self) -> int:
        """Width of one embedding."""
        return int(self.projection.out_features if self.projection else self.encoder.config.hidden_size)

    def use_packing(self, packing: type[Packing]) -> None:
        """From now on read packed chunks instead of padded ones."""
        pack_encoder(self.encoder)
        self.packing = packing

    def forward(self, *inputs: Tensor) -> Tensor:
        """Embeddings (B, D) in float32 of the inputs of a padded chunk, or of a packed one once packing is used."""
        return self.finish(self.pool_packed(*inputs) if self.packing else self.pool_padded(*inputs))

    def finish(self, pooled_BH: Tensor) -> Tensor:
        """Embeddings (B, D) of pooled states."""
        embedding_BD = pooled_BH if self.projection is None else self.projection(pooled_BH)
        return nn.functional.normalize(embedding_BD, dim=-1) if self.normalize else embedding_BD

    def pool_padded(self, token_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Pooled state (B, H), float32, of token ids whose real tokens are 1 in `mask_BL`."""
        state_BLH = self.encoder(input_ids=token_BL, attention_mask=mask_BL).last_hidden_state
        return masked_mean(state_BLH, mask_BL) if self.pooling == "mean" else state_BLH[:, 0].float()

    def pool_packed(self, token_T: Tensor, document_T: Tensor, length_B: Tensor) -> Tensor:
        """Pooled state (B, H), float32, of the documents that lie end to end in `token_T`; see `PackedChunk`."""
        assert self.packing is not None
        # One mask for all layers. It travels as an argument, so a block recomputed for its gradient sees it too.
        packing = self.packing.of(document_T)
        state_1TH = self.encoder(input_ids=token_T[None], packing=packing).last_hidden_state
        return (packed_mean if self.pooling == "mean" else packed_first)(state_1TH[0], length_B)


class PublishedTower(Tower):
    """A tower as sentence-transformers publishes them: after pooling, any sequence of Dense and Normalize modules."""

    def __init__(self, encoder: nn.Module, pooling: Pooling, head: nn.Sequential, dimension: int) -> None:
        super().__init__(encoder, None, normalize=False)
        self.pooling = pooling
        self.head = head
        self._dimension = dimension

    @property
    def dimension(self) -> int:
        return self._dimension

    def finish(self, pooled_BH: Tensor) -> Tensor:
        embedding_BD: Tensor = self.head(pooled_BH)
        return embedding_BD
