"""How many parameters a recipe's model has, in which shapes, without building it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from largede.config.recipe import ModelConfig
from largede.errors import ModelError
from largede.models.presets import KNOWN_BACKBONES, PRESETS, T5Shape

BIAS_BUCKETS = 32
"""T5's buckets of relative positions; only the first block owns a table of them, which the others share."""


@dataclass(frozen=True)
class Weight:
    """One parameter: its shape, and whether it is trained."""

    shape: tuple[int, ...]
    trained: bool = True

    @property
    def numel(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class ModelShape:
    """The encoder's shape and every parameter of the dual encoder, each once, in the order of the model."""

    encoder: T5Shape
    embedding_dim: int
    towers: int
    weights: tuple[Weight, ...]

    @property
    def parameters(self) -> int:
        return sum(w.numel for w in self.weights)

    @property
    def trained(self) -> int:
        return sum(w.numel for w in self.weights if w.trained)

    @property
    def largest(self) -> int:
        """Elements of the largest parameter."""
        return max(w.numel for w in self.weights)

    @property
    def layer_matrices(self) -> int:
        """Elements of the matrices of one layer: what a token is multiplied with."""
        return sum(prod(s) for s in layer_matrices(self.encoder))

    @property
    def tower_parameters(self) -> int:
        return sum(prod(s) for s in encoder_shapes(self.encoder)) + self.encoder.d_model * self.embedding_dim


def model_shape(config: ModelConfig) -> ModelShape:
    """The shape of the model that `models.build` makes of the same settings.

    Raises:
        ModelError: the backbone is no preset, no known hub name, and no folder of a T5 encoder.
    """
    encoder = encoder_shape(config.backbone)
    if config.layers is not None:
        if config.layers > encoder.layers:
            raise ModelError(
                f"model.layers is {config.layers}",
                expected=f"at most the backbone's {encoder.layers}",
                mend="lower it or leave it empty",
            )
        encoder = replace(encoder, layers=config.layers)
    embedder, *rest = (Weight(s) for s in encoder_shapes(encoder))
    projection = Weight((config.embedding_dim, encoder.d_model))
    layout = config.layout
    if layout == "ade-fte":
        embedder = replace(embedder, trained=False)
    weights = [embedder, *rest, projection]
    if layout != "sde":
        own_embedder = [] if layout in ("ade-ste", "ade-fte") else [embedder]
        weights += [*own_embedder, *rest] + ([] if layout == "ade-spl" else [projection])
    return ModelShape(encoder, config.embedding_dim, 1 if layout == "sde" else 2, tuple(weights))


def encoder_shapes(encoder: T5Shape) -> Iterator[tuple[int, ...]]:
    """Every parameter of one encoder, the token embedder first."""
    yield encoder.vocabulary, encoder.d_model
    for layer in range(encoder.layers):
        attention, feed_forward = layer_matrices(encoder)[:4], layer_matrices(encoder)[4:]
        yield from attention
        if layer == 0:
            yield BIAS_BUCKETS, encoder.heads
        yield (encoder.d_model,)
        yield from feed_forward
        yield (encoder.d_model,)
    yield (encoder.d_model,)


def layer_matrices(encoder: T5Shape) -> list[tuple[int, int]]:
    """q, k, v, o, then the feed-forward matrices (three of them when it is gated)."""
    D, inner, F = encoder.d_model, encoder.heads * encoder.d_kv, encoder.d_ff
    entrances = 2 if is_gated(encoder) else 1
    return [(inner, D)] * 3 + [(D, inner)] + [(F, D)] * entrances + [(D, F)]


def is_gated(encoder: T5Shape) -> bool:
    return encoder.feed_forward.startswith("gated")


def encoder_shape(backbone: str) -> T5Shape:
    """A preset, a published T5 1.0 model, or what config.json of a folder or of a downloaded hub model says."""
    name = KNOWN_BACKBONES.get(backbone, backbone)
    if name in PRESETS:
        return PRESETS[name]
    path = Path(backbone) / "config.json"
    if not path.is_file():
        path = downloaded_config(backbone) or path
    try:
        return _shape_of_config(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the shape of backbone {backbone!r} is not known ({type(error).__name__}: {error})",
            expected=f"a preset ({', '.join(PRESETS)}), one of {', '.join(KNOWN_BACKBONES)}, or a T5 folder",
            mend="give --model.backbone a preset of the same shape: a plan needs the shape only",
        ) from None


def downloaded_config(name: str) -> Path | None:
    """config.json of a hub model that this machine has downloaded before."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None  # a path, not the name of a model
    return Path(found) if isinstance(found, str) else None


def _shape_of_config(config: dict[str, Any]) -> T5Shape:
    if config.get("model_type") not in ("t5", "mt5", "umt5"):
        raise ValueError(f"config.json describes a {config.get('model_type')!r} model")
    return T5Shape(
        layers=int(config["num_layers"]),
        d_model=int(config["d_model"]),
        heads=int(config["num_heads"]),
        d_kv=int(config["d_kv"]),
        d_ff=int(config["d_ff"]),
        vocabulary=int(config["vocab_size"]),
        feed_forward=str(config.get("feed_forward_proj", "relu")),
    )
