"""A dual encoder from its settings: from scratch at a preset shape, or with the weights of a folder or hub name."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from largede.config.recipe import ModelConfig
from largede.errors import ModelError
from largede.models.dual_encoder import DualEncoder, join_towers
from largede.models.pooling import Projection
from largede.models.presets import PRESETS, T5Shape
from largede.models.tower import Tower

TOKENIZER_FILES = ("spiece.model", "tokenizer.json", "tokenizer_config.json")


def prepare_libraries() -> None:
    """Tell DeepSpeed, which transformers imports, of a missing accelerator before it warns; no bars for local files."""
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from transformers.utils import logging

    logging.disable_progress_bar()


def build_dual_encoder(
    config: ModelConfig, context: contextlib.AbstractContextManager[Any] | None = None
) -> DualEncoder:
    """Build the model of a recipe, float32, on the CPU.

    Args:
        config: the model group of a recipe. Fresh weights depend on `config.seed` alone, so all ranks agree.
        context: entered while parameters are made, for callers that shard them at birth; none by default.
    Raises:
        ModelError: the backbone cannot be loaded.
    """
    with torch.random.fork_rng(devices=[]), context or contextlib.nullcontext():
        torch.manual_seed(config.seed)
        return join_towers(lambda: build_tower(config), config.layout)


def build_tower(config: ModelConfig) -> Tower:
    prepare_libraries()
    encoder = build_encoder(config)
    projection = Projection(encoder.config.hidden_size, config.embedding_dim)
    return Tower(encoder, projection, normalize=config.similarity == "cosine")


def build_encoder(config: ModelConfig) -> Any:
    """The encoder stack: a preset shape with fresh weights, or a T5- or BERT-family encoder with its own."""
    shape = PRESETS.get(config.backbone)
    if shape is not None:
        from transformers import T5EncoderModel

        encoder = T5EncoderModel(t5_config(shape, config.dropout))
    else:
        encoder = load_encoder(config.backbone, config.dropout)
    return encoder


def t5_config(shape: T5Shape, dropout: float) -> Any:
    from transformers import T5Config

    return T5Config(
        vocab_size=shape.vocabulary,
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        d_ff=shape.d_ff,
        num_layers=shape.layers,
        num_heads=shape.heads,
        feed_forward_proj=shape.feed_forward,
        dropout_rate=dropout,
        use_cache=False,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )


def load_encoder(name: str, dropout: float | None = None) -> nn.Module:
    """Weights of a local folder or hub name, float32; T5-family checkpoints give their encoder half."""
    prepare_libraries()
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

    try:
        config = AutoConfig.from_pretrained(name)
        if dropout is not None:
            for attribute in ("dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob"):
                if hasattr(config, attribute):
                    setattr(config, attribute, dropout)
        is_t5 = config.model_type in ("t5", "mt5", "umt5")
        loader = AutoModelForTextEncoding if is_t5 else AutoModel
        return loader.from_pretrained(name, config=config, dtype=torch.float32, attn_implementation="sdpa")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"backbone {name!r} cannot be loaded: {str(error).splitlines()[0]}",
            expected=f"a preset ({', '.join(PRESETS)}), a local folder with config.json and weights, or a hub name",
            mend="check the name; without internet, copy the folder to this machine and give its path",
        ) from None


def load_tokenizer(name: str | Path, *, vocabulary: int | None = None) -> Any:
    """The tokenizer of a folder or hub name, checked against the width of the token embedder.

    Raises:
        ModelError: it cannot be loaded, maps ordinary text to unknown tokens, or has more tokens than the embedder.
    """
    prepare_libraries()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"tokenizer {str(name)!r} cannot be loaded: {str(error).splitlines()[0]}",
            expected=f"a folder with {', '.join(TOKENIZER_FILES)}, or a hub name",
            mend="make one with `largede-data vocabulary`, or give the folder of a published model",
        ) from None
    # transformers can load a SentencePiece file it does not understand into a tokenizer of unknown tokens only.
    probe = tokenizer("the question of a search engine")["input_ids"]
    if probe.count(tokenizer.unk_token_id) > len(probe) // 2:
        raise ModelError(
            f"tokenizer {str(name)!r} gives unknown tokens for plain English",
            expected="a tokenizer that transformers reads fully",
            mend="check spiece.model and that tokenizer_config.json names its class",
        )
    if vocabulary is not None and len(tokenizer) > vocabulary:
        raise ModelError(
            f"tokenizer {str(name)!r} has {len(tokenizer)} tokens",
            expected=f"at most the {vocabulary} rows of the token embedder",
            mend="use the tokenizer the backbone was made for",
        )
    return tokenizer
