"""The same dual encoder in sentence-transformers, with the same loss, to hold one step against the other."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from largede.config.recipe import Recipe
from largede.models.dual_encoder import DualEncoder
from largede.models.folder import FolderSettings, write_model_folder
from largede.streams.chunks import TokenRows, pad_rows
from largede.streams.tokenise import RankBatch
from largede.training.optimizers import client_optimizer
from largede.training.slices import flat_groups


def as_sentence_transformer(model: DualEncoder, folder: Path, device: str = "cpu") -> Any:
    """Export a model of one tower and load the folder with sentence-transformers, to be trained, in float32."""
    from sentence_transformers import SentenceTransformer

    settings = FolderSettings("cosine", max_tokens=512, query_prefix="", passage_prefix="", card="")
    write_model_folder(model, made_tokenizer(), settings, folder)
    return SentenceTransformer(str(folder), device=device, local_files_only=True).float().train()


def made_tokenizer() -> Any:
    """A tokenizer that the folder must have and nobody asks: both sides are given token ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_input_names=INPUTS
    )


INPUTS = ["input_ids", "attention_mask"]


def peer_loss(peer: Any, recipe: Recipe, mini_batch_size: int | None) -> Any:
    """Its loss for our recipe: cached in mini-batches of so many rows, or the whole batch in one graph for None.

    Where both directions are asked for it averages what we add up, so its loss and gradients are half of ours.
    """
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    both = ("query_to_doc", "doc_to_query") if recipe.loss.passage_to_query else ("query_to_doc",)
    settings = {"scale": 1 / recipe.loss.temperature, "directions": both, "partition_mode": "per_direction"}
    if mini_batch_size is None:
        return MultipleNegativesRankingLoss(peer, **settings)
    return CachedMultipleNegativesRankingLoss(peer, mini_batch_size=mini_batch_size, **settings)


def directions_of(recipe: Recipe) -> int:
    """How many directions the loss has: by this our loss is larger than theirs."""
    return 1 + recipe.loss.passage_to_query


def columns_of(batch: RankBatch) -> list[dict[str, Tensor]]:
    """The batch as its losses want it: queries, positives, first hard negatives, second ones, and so on."""
    B = len(batch)
    per_query = len(batch.passages) // B - 1
    positives = padded(batch.passages, np.arange(B))
    negatives = [padded(batch.passages, B + np.arange(B) * per_query + k) for k in range(per_query)]
    return [padded(batch.queries, np.arange(B)), positives, *negatives]


def padded(rows: TokenRows, which: np.ndarray) -> dict[str, Tensor]:
    """Some rows in their order, padded to the longest of them, as its collator gives a batch."""
    return dict(zip(INPUTS, pad_rows(rows, which).inputs, strict=True))


def peer_gradients(peer: Any) -> dict[str, Tensor]:
    """Its gradients under our names."""
    parts = {"query_tower.encoder": peer[0].auto_model, "query_tower.projection": peer[2].linear}
    return {f"{name}.{n}": p.grad.clone() for name, part in parts.items() for n, p in part.named_parameters()}


def watch_gradients(engine: Any) -> dict[str, Tensor]:
    """A dictionary that holds every gradient by name once the engine, alone in its group, has stepped."""
    seen: dict[str, Tensor] = {}

    def look(*ignored: Any) -> None:
        for group in flat_groups(engine):
            if group.gradient is not None:
                for held in group.slices:
                    seen[held.name] = held.of(group.gradient).detach().clone().view(held.shape)

    client_optimizer(engine).register_step_pre_hook(look)
    return seen


def worst_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative difference of a gradient, and whose it is."""
    assert set(ours) == set(theirs)
    return max((float((ours[n] - g).norm() / g.norm()), n) for n, g in theirs.items())


def on_device(columns: list[dict[str, Tensor]], device: torch.device) -> list[dict[str, Tensor]]:
    return [{name: tensor.to(device) for name, tensor in column.items()} for column in columns]
