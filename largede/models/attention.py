"""Packed attention: texts end to end in one row, each attending to itself alone, with T5's relative bias.

transformers computes T5's bias as a dense (1, H, T, T) tensor before it calls the attention function: 64 GiB in bf16 at
16,384 tokens and 128 heads. A packed encoder hands on a table (H, R) instead, one value per head and distance, and an
attention function of ours looks it up where it is needed. Two packings do that: `FlexPacking` for a GPU, and
`DensePacking`, its plain twin, where there is none. Neither drops attention weights out.

Shapes: T tokens of a packed chunk, H heads, K width of a head, R distances (2 * farthest + 1), N tiles of a chunk.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from largede.config.recipe import Attention
from largede.errors import RecipeError
from largede.streams.chunks import TILE_TOKENS

T5_FAMILY = ("t5", "mt5", "umt5")
PACKED = "largede_packed"
"""The name under which transformers finds our attention function."""
MOST_COMPILATIONS = 64
"""Chunk shapes of two budgets, with and without gradient, stay far below; dynamo's own limit of 8 would not."""


class Packing(ABC):
    """Which tokens of one chunk belong together; made once per chunk, used by every layer."""

    @classmethod
    @abstractmethod
    def of(cls, document_T: Tensor) -> "Packing":
        """From the document of each token; a document's tokens lie side by side and numbers never fall."""

    @abstractmethod
    def attend(
        self, query_1HTK: Tensor, key_1HTK: Tensor, value_1HTK: Tensor, table_HR: Tensor, scale: float
    ) -> Tensor:
        """Attention (1, H, T, K) of each token to its own document, the table's bias added to the scaled scores."""


class DensePacking(Packing):
    """The plain twin: bias and mask as one dense (1, H, T, T) tensor. Memory grows with the square of the chunk."""

    def __init__(self, same_TT: Tensor) -> None:
        self.same_TT = same_TT

    @classmethod
    def of(cls, document_T: Tensor) -> "DensePacking":
        return cls(document_T[:, None] == document_T[None, :])

    def attend(
        self, query_1HTK: Tensor, key_1HTK: Tensor, value_1HTK: Tensor, table_HR: Tensor, scale: float
    ) -> Tensor:
        farthest = table_HR.shape[1] // 2
        place_T = torch.arange(len(self.same_TT), device=table_HR.device)
        column_TT = (place_T[None, :] - place_T[:, None]).clamp(-farthest, farthest) + farthest
        # An embedding's backward pass sums in a fixed order on the CPU, where advanced indexing would not.
        bias_TTH = nn.functional.embedding(column_TT, table_HR.T)
        bias_HTT = bias_TTH.permute(2, 0, 1).masked_fill(~self.same_TT, float("-inf"))
        # Written out: torch's fused attention takes another kernel where a gradient is wanted, so the second pass of
        # GradCache would differ from the first in the last bits.
        score_1HTT = (query_1HTK @ key_1HTK.transpose(2, 3)).float() * scale + bias_HTT
        return score_1HTT.softmax(-1).to(value_1HTK.dtype) @ value_1HTK


class FlexPacking(Packing):
    """FlexAttention: tiles without a common document are skipped, bias and mask are looked up inside the kernel.

    Compiled on a GPU, one compilation per chunk shape. On a CPU it runs uncompiled and forward only: torch has no
    backward pass for it there.
    """

    def __init__(self, mask: BlockMask) -> None:
        self.mask = mask

    @classmethod
    def of(cls, document_T: Tensor) -> "FlexPacking":
        return cls(document_mask(document_T))

    def attend(
        self, query_1HTK: Tensor, key_1HTK: Tensor, value_1HTK: Tensor, table_HR: Tensor, scale: float
    ) -> Tensor:
        kernel = compiled_flex() if query_1HTK.is_cuda else flex_with_table
        return kernel(query_1HTK, key_1HTK, value_1HTK, table_HR, self.mask, scale)


def flex_with_table(
    query_1HTK: Tensor, key_1HTK: Tensor, value_1HTK: Tensor, table_HR: Tensor, mask: BlockMask, scale: float
) -> Tensor:
    farthest = table_HR.shape[1] // 2

    def with_bias(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + table_HR[head, (key - query).clamp(-farthest, farthest) + farthest]

    attended: Any = flex_attention(query_1HTK, key_1HTK, value_1HTK, score_mod=with_bias, block_mask=mask, scale=scale)
    return attended


@functools.cache
def compiled_flex(backend: str = "inductor") -> Callable[..., Tensor]:
    """`flex_with_table` compiled for each shape it meets.

    It raises rather than go on uncompiled, with the scores of a whole chunk in memory: `fullgraph` makes an error of
    what dynamo cannot trace and of its limit on compilations.
    """
    dynamo: Any = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, MOST_COMPILATIONS)
    return torch.compile(flex_with_table, dynamic=False, fullgraph=True, backend=backend)


def document_mask(document_T: Tensor) -> BlockMask:
    """FlexAttention's block mask of "same document", for whole tiles of tokens.

    Computed from the first and last document of each tile, O(N^2) small numbers; torch's `create_block_mask` would
    evaluate all T^2 pairs.
    """
    tile_NL = document_T.view(-1, TILE_TOKENS)
    first_N, last_N = tile_NL[:, 0], tile_NL[:, -1]
    overlap_NN = (first_N[:, None] <= last_N[None, :]) & (first_N[None, :] <= last_N[:, None])
    whole_N = first_N == last_N
    full_NN = overlap_NN & whole_N[:, None] & whole_N[None, :]

    def same_document(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return document_T[query] == document_T[key]

    return BlockMask.from_kv_blocks(
        *_listed(overlap_NN & ~full_NN),
        *_listed(full_NN),
        BLOCK_SIZE=TILE_TOKENS,
        mask_mod=same_document,
    )


def _listed(chosen_NN: Tensor) -> tuple[Tensor, Tensor]:
    """How many tiles each row chose (1, 1, N), and all tiles of the row, the chosen ones first (1, 1, N, N)."""
    order_NN = chosen_NN.int().argsort(dim=1, descending=True, stable=True)
    return chosen_NN.sum(1, dtype=torch.int32)[None, None], order_NN.int().contiguous()[None, None]


def packing_for(attention: Attention, model_type: str, *, on_gpu: bool) -> type[Packing] | None:
    """What `engine.attention` means for a backbone on this machine; None: padded.

    Raises:
        RecipeError: packed attention for a backbone that is not of the T5 family.
    """
    is_t5 = model_type in T5_FAMILY
    if attention == "packed" and not is_t5:
        raise RecipeError(
            f"engine.attention is packed and the backbone is of type {model_type}",
            expected=f"a backbone of the T5 family ({', '.join(T5_FAMILY)})",
            mend="set engine.attention to padded, or to auto",
        )
    if attention == "padded" or (attention == "auto" and not (is_t5 and on_gpu)):
        return None
    return FlexPacking if on_gpu else DensePacking


def pack_encoder(encoder: Any) -> None:
    """Turn a T5-family encoder of transformers into one that attends through `packing=` and a table of distances."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
    for module in encoder.modules():
        # Asked of every part: before transformers 5.23 a stack with a config of its own was passed over.
        if hasattr(module, "set_attn_implementation"):
            module.set_attn_implementation(PACKED)
        # Block 0 in T5 and mT5, every block in umT5.
        if hasattr(module, "relative_attention_bias"):
            module.compute_bias = MethodType(distance_table, module)


def distance_table(
    attention: Any, query_length: int, key_length: int, device: torch.device | None = None, past_seen_tokens: int = 0
) -> Tensor:
    """T5's bias per head and distance (H, R), float32, in place of its `compute_bias` (1, H, T, T).

    The distance of column r is r - farthest. All distances beyond `relative_attention_max_distance` share the bucket
    of that distance, so R does not depend on the chunk. Asked of the class's own method as one query amid the keys, so
    that the buckets are transformers' and the embedding is called as a module, whose hooks gather it under ZeRO-3.
    Float32, because the gradients of all pairs of tokens are summed into it.
    """
    farthest = attention.relative_attention_max_distance
    bias_1H1R = type(attention).compute_bias(attention, 1, 2 * farthest + 1, device=device, past_seen_tokens=farthest)
    return bias_1H1R[0, :, 0].float().contiguous()


def packed_attention(
    module: nn.Module,
    query_1HTK: Tensor,
    key_1HTK: Tensor,
    value_1HTK: Tensor,
    attention_mask: None,
    *,
    packing: Packing,
    position_bias: Tensor,
    scaling: float,
    **unused: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: (1, T, H, K), and no weights. Its `dropout` is left out."""
    attended_1HTK = packing.attend(query_1HTK, key_1HTK, value_1HTK, position_bias, scaling)
    return attended_1HTK.transpose(1, 2), None
