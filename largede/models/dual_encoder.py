"""Two towers in one of five layouts.

Source: Dong et al. 2022, "Exploring Dual Encoder Architectures for Question Answering", figure 1.

| layout  | shared between the towers                         |
|---------|---------------------------------------------------|
| sde     | everything                                        |
| ade     | nothing                                           |
| ade-ste | the token embedder                                |
| ade-fte | the token embedder, which is frozen               |
| ade-spl | the projection                                    |
"""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn

from largede.config.recipe import Attention, Layout
from largede.errors import ModelError
from largede.models.attention import packing_for
from largede.models.tower import Tower

Side = Literal["query", "passage"]
SIDES: tuple[Side, Side] = get_args(Side)


class DualEncoder(nn.Module):
    """`forward(side, *chunk.inputs)` embeds rows of one side; the engine is always called through it."""

    def __init__(self, query_tower: Tower, passage_tower: Tower, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.query_tower = query_tower
        # Under sde both names are one module: its parameters are registered, sharded and saved once.
        self.passage_tower = passage_tower

    def tower(self, side: Side) -> Tower:
        return self.query_tower if side == "query" else self.passage_tower

    @property
    def towers(self) -> list[Tower]:
        """The one or two different towers."""
        return [self.query_tower] if self.passage_tower is self.query_tower else [self.query_tower, self.passage_tower]

    @property
    def is_packed(self) -> bool:
        """True when `forward` takes packed chunks, False when it takes padded ones."""
        return self.query_tower.packing is not None

    def forward(self, side: Side, *inputs: Tensor) -> Tensor:
        """Embeddings (B, D), float32, of one side's chunk, given its inputs."""
        return self.tower(side)(*inputs)

    def choose_attention(self, attention: Attention, *, on_gpu: bool) -> None:
        """Settle whether the towers read padded or packed chunks.

        Raises:
            RecipeError: packed attention for a backbone that is not of the T5 family.
        """
        for tower in self.towers:
            packing = packing_for(attention, tower.encoder.config.model_type, on_gpu=on_gpu)
            if packing is not None:
                tower.use_packing(packing)

    def enable_activation_checkpointing(self) -> None:
        """Keep only the inputs of each block and compute it again for its gradient."""
        for tower in self.towers:
            # transformers 5.23 has a new name for it and warns of the old one.
            newest = getattr(tower.encoder, "activation_checkpointing_enable", None)
            (newest or tower.encoder.gradient_checkpointing_enable)({"use_reentrant": False})


def join_towers(build_tower: Callable[[], Tower], layout: Layout) -> DualEncoder:
    """Build one or two towers and share between them what the layout shares.

    Raises:
        ModelError: the layout is unknown.
    """
    query_tower = build_tower()
    if layout == "sde":
        return DualEncoder(query_tower, query_tower, layout)
    passage_tower = build_tower()
    if layout in ("ade-ste", "ade-fte"):
        share_token_embedder(query_tower, passage_tower, frozen=layout == "ade-fte")
    elif layout == "ade-spl":
        passage_tower.projection = query_tower.projection
    elif layout != "ade":
        raise ModelError(f"layout {layout!r}", expected="sde, ade, ade-ste, ade-fte or ade-spl", mend="choose one")
    return DualEncoder(query_tower, passage_tower, layout)


def share_token_embedder(query_tower: Tower, passage_tower: Tower, *, frozen: bool) -> None:
    embedder = query_tower.encoder.get_input_embeddings()
    passage_tower.encoder.set_input_embeddings(embedder)
    if frozen:
        embedder.requires_grad_(False)
