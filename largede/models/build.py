"""A dual encoder from its settings: from scratch at a preset shape, or with the weights of a folder or hub name."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from largede.config.recipe import ModelConfig
from largede.errors import ModelError
from largede.models.attention import T5_FAMILY
from largede.models.dual_encoder import DualEncoder, join_towers
from largede.models.pooling import Projection
from largede.models.presets import PRESETS, T5Shape
from largede.models.tower import Tower
from largede.models.weights import FreshWeights, fill_parameters, is_projection

TOKENIZER_FILES = ("spiece.model", "tokenizer.json", "tokenizer_config.json")


def prepare_libraries() -> None:
    """Tell DeepSpeed, which transformers imports, of a missing accelerator before it warns.

    transformers keeps quiet: no bars for local files, and no table of weights that were left out, for what is missing
    is refused here.
    """
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def build_dual_encoder(config: ModelConfig) -> DualEncoder:
    """Build the model of a recipe whole, float32, on the CPU.

    Fresh weights depend on `config.seed` and the parameter's name alone, so all ranks agree.

    Raises:
        ModelError: the backbone cannot be loaded.
    """
    if config.backbone in PRESETS:
        model = build_structure(config)
        fill_parameters(model, FreshWeights(model, config.seed))
        return model
    # transformers knows more formats, and BERT's buffers; what it loads equals what PretrainedWeights reads (tested).
    encoders = [load_encoder(config.backbone, config.dropout, config.layers) for _ in range(towers_of(config))]
    model = join_towers(lambda: make_tower(encoders.pop(), config), config.layout)
    fresh = FreshWeights(model, config.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_projection(name):
                parameter.copy_(fresh.read(name, 0, parameter.numel()).view(parameter.shape))
    return model


def build_structure(config: ModelConfig, context: contextlib.AbstractContextManager[Any] | None = None) -> DualEncoder:
    """The modules of a T5 dual encoder with parameters of the right shapes and any values, to be filled from a source.

    Args:
        config: the model group of a recipe.
        context: entered while parameters are made, for callers that shard them at birth or want none at all (a meta
            device); none by default.
    Raises:
        ModelError: the backbone's config cannot be loaded, or it has fewer layers than asked for.
    """
    prepare_libraries()
    from transformers.initialization import no_init_weights

    encoder_config = t5_config_of(config)
    with no_init_weights(), context or contextlib.nullcontext():
        return join_towers(lambda: make_tower(build_t5(encoder_config), config), config.layout)


def towers_of(config: ModelConfig) -> int:
    return 1 if config.layout == "sde" else 2


def make_tower(encoder: Any, config: ModelConfig) -> Tower:
    projection = Projection(encoder.config.hidden_size, config.embedding_dim)
    return Tower(encoder, projection, normalize=config.similarity == "cosine")


def build_t5(encoder_config: Any) -> Any:
    """A T5-family encoder from its transformers config."""
    from transformers import AutoModelForTextEncoding

    encoder = AutoModelForTextEncoding.from_config(encoder_config, attn_implementation="sdpa")
    # What ties the two names of the token embedder is part of the initialisation that was left out.
    encoder.set_input_embeddings(encoder.get_input_embeddings())
    return encoder


def is_t5(config: ModelConfig) -> bool:
    """Whether the backbone is of the T5 family, whose parameters can be made in shards and filled by range."""
    return config.backbone in PRESETS or read_config(config.backbone).model_type in T5_FAMILY


def t5_config_of(config: ModelConfig) -> Any:
    """The transformers config of a T5-family backbone with the recipe's dropout and layers."""
    shape = PRESETS.get(config.backbone)
    encoder_config = read_config(config.backbone) if shape is None else t5_config(shape)
    return with_recipe(encoder_config, config.dropout, config.layers)


def with_recipe(encoder_config: Any, dropout: float | None, layers: int | None) -> Any:
    """The config of an encoder with a recipe's dropout and number of layers put in."""
    if dropout is not None:
        for attribute in ("dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob"):
            if hasattr(encoder_config, attribute):
                setattr(encoder_config, attribute, dropout)
    if layers is not None:
        name = "num_layers" if encoder_config.model_type in T5_FAMILY else "num_hidden_layers"
        if layers > getattr(encoder_config, name):
            raise ModelError(
                f"model.layers is {layers}",
                expected=f"at most the backbone's {getattr(encoder_config, name)}",
                mend="lower it or leave it empty",
            )
        setattr(encoder_config, name, layers)
    return encoder_config


def t5_config(shape: T5Shape) -> Any:
    from transformers import T5Config

    return T5Config(
        vocab_size=shape.vocabulary,
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        d_ff=shape.d_ff,
        num_layers=shape.layers,
        num_heads=shape.heads,
        feed_forward_proj=shape.feed_forward,
        use_cache=False,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )


def read_config(name: str) -> Any:
    """The transformers config of a local folder or hub name.

    Raises:
        ModelError: there is none.
    """
    prepare_libraries()
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise backbone_error(name, error) from None


def backbone_error(name: str, error: Exception) -> ModelError:
    return ModelError(
        f"backbone {name!r} cannot be loaded: {str(error).splitlines()[0]}",
        expected=f"a preset ({', '.join(PRESETS)}), a local folder with config.json and weights, or a hub name",
        mend="check the name; without internet, copy the folder to this machine and give its path",
    )


def load_encoder(name: str, dropout: float | None = None, layers: int | None = None) -> nn.Module:
    """Weights of a local folder or hub name, float32; T5-family checkpoints give their encoder half."""
    config = with_recipe(read_config(name), dropout, layers)
    from transformers import AutoModel, AutoModelForTextEncoding

    loader = AutoModelForTextEncoding if config.model_type in T5_FAMILY else AutoModel
    # Elsewhere transformers chooses: sdpa where the model has it, and MPNet has not.
    attention = {"attn_implementation": "sdpa"} if config.model_type in T5_FAMILY else {}
    try:
        encoder, report = loader.from_pretrained(
            name, config=config, dtype=torch.float32, output_loading_info=True, **attention
        )
    except SafetensorError as error:
        raise ModelError(
            f"the weights of {name} are damaged: {str(error).splitlines()[0]}",
            expected="whole safetensors files",
            mend="copy or download them again",
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise backbone_error(name, error) from None
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelError(
            f"{name} has no weights for {missing[0]} ({len(missing)} are missing)",
            expected="all weights of its own config.json",
            mend="check model.backbone and model.layers",
        )
    return encoder


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """What `load_tokenizer` reads again: transformers' own files, and T5's `spiece.model`, which it would leave out."""
    tokenizer.save_pretrained(folder)
    pieces = Path(getattr(tokenizer, "vocab_file", None) or "")
    if pieces.name == TOKENIZER_FILES[0] and pieces.is_file() and pieces.parent.resolve() != folder.resolve():
        shutil.copyfile(pieces, folder / pieces.name)


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
