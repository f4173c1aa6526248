"""How many parameters a recipe's model has, in which shapes, without building it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from largede.config.recipe import Layout, ModelConfig
from largede.errors import ModelError
from largede.models.presets import KNOWN_BACKBONES, PRESETS, T5Shape
from largede.training.rate_factors import Named, factors_of

BIAS_BUCKETS = 32
"""T5's buckets of relative positions; only the first block owns a table of them, which the others share."""


@dataclass(frozen=True)
class Weight:
    """One parameter: its shape, whether it is trained, and its names in the model (a tied one has several)."""

    shape: tuple[int, ...]
    names: tuple[str, ...]
    trained: bool = True

    @property
    def numel(self) -> int:
        return prod(self.shape)

    def within(self, *towers: str) -> "Weight":
        return replace(self, names=tuple(f"{tower}.{name}" for tower in towers for name in self.names))


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
        return sum(w.numel for w in encoder_weights(self.encoder)) + self.encoder.d_model * self.embedding_dim


def model_shape(config: ModelConfig, rate_factors: Mapping[str, float] | None = None) -> ModelShape:
    """The shape of the model that `models.build` makes of the same settings, frozen where a rate factor is 0.

    Raises:
        ModelError: the backbone is no preset, no known hub name, and no folder of a T5 encoder, or has too few layers.
        RecipeError: a part of a name in `rate_factors` has no effect, or nothing is left to train.
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
    towers = 1 if config.layout == "sde" else 2
    weights = list(_weights(encoder, config.embedding_dim, config.layout))
    factors = factors_of([Named(weight.names, weight.trained) for weight in weights], rate_factors or {})
    weights = [replace(weight, trained=factor != 0.0) for weight, factor in zip(weights, factors, strict=True)]
    return ModelShape(encoder, config.embedding_dim, towers, tuple(weights))


def _weights(encoder: T5Shape, embedding_dim: int, layout: Layout) -> Iterator[Weight]:
    """What both towers share comes once, with the names it has in either."""
    embedder, *rest = encoder_weights(encoder)
    projection = Weight((embedding_dim, encoder.d_model), ("projection.weight",))
    shared_embedder = layout in ("sde", "ade-ste", "ade-fte")
    shared_projection = layout in ("sde", "ade-spl")
    both, query, passage = ("query_tower", "passage_tower"), ("query_tower",), ("passage_tower",)
    yield replace(embedder, trained=layout != "ade-fte").within(*(both if shared_embedder else query))
    yield from (weight.within(*(both if layout == "sde" else query)) for weight in rest)
    yield projection.within(*(both if shared_projection else query))
    if layout == "sde":
        return
    if not shared_embedder:
        yield embedder.within(*passage)
    yield from (weight.within(*passage) for weight in rest)
    if not shared_projection:
        yield projection.within(*passage)


def encoder_weights(encoder: T5Shape) -> Iterator[Weight]:
    """Every parameter of one encoder, named as in transformers, the token embedder first."""
    D = encoder.d_model
    yield Weight((encoder.vocabulary, D), ("encoder.shared.weight", "encoder.encoder.embed_tokens.weight"))
    matrices = layer_matrices(encoder)
    for layer in range(encoder.layers):
        attention = f"encoder.encoder.block.{layer}.layer.0"
        feed_forward = f"encoder.encoder.block.{layer}.layer.1"
        for letter, shape in zip("qkvo", matrices[:4], strict=True):
            yield Weight(shape, (f"{attention}.SelfAttention.{letter}.weight",))
        if layer == 0:
            table = f"{attention}.SelfAttention.relative_attention_bias.weight"
            yield Weight((BIAS_BUCKETS, encoder.heads), (table,))
        yield Weight((D,), (f"{attention}.layer_norm.weight",))
        entrances = ("wi_0", "wi_1", "wo") if is_gated(encoder) else ("wi", "wo")
        for name, shape in zip(entrances, matrices[4:], strict=True):
            yield Weight(shape, (f"{feed_forward}.DenseReluDense.{name}.weight",))
        yield Weight((D,), (f"{feed_forward}.layer_norm.weight",))
    yield Weight((D,), ("encoder.encoder.final_layer_norm.weight",))


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
