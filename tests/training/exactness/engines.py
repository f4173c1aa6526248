"""The model of the matrix and its DeepSpeed engine, which serves every case that differs in what can be switched."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from exactness.case_batch import PASSAGE_TOKENS, QUERY_TOKENS, RAGGED_QUERIES, VOCABULARY, chunk_tokens
from exactness.factors import Case
from largede.config.load import with_settings
from largede.config.recipe import Recipe
from largede.files import write_json
from largede.models.build import build_dual_encoder
from largede.models.dual_encoder import DualEncoder
from largede.models.presets import PRESETS, T5Shape
from largede.training.engine import build_engine
from largede.training.optimizers import client_optimizer
from largede.training.slices import ParameterSlice, flat_groups

Precision = Literal["float32", "bf16", "autocast"]

DROPOUT = 0.2
COSINE_TEMPERATURE = 0.01
DOT_TEMPERATURE = 0.1
"""Unnormalised embeddings of this model have lengths of 2 to 4: the scores then span as much as cosines over 0.01."""

PRESETS["exactness"] = T5Shape(layers=2, d_model=16, heads=2, d_kv=8, d_ff=24, vocabulary=VOCABULARY)
"""Every kind of parameter of T5 in 8,000 numbers: what is wrong is wrong at any size, and this one is quick."""

ZERO_SETTINGS = {
    # Small enough that several buckets fill in each backward pass and ZeRO-3 steps several sub-groups.
    "reduce_bucket_size": 3000,
    "sub_group_size": 3000,
    # Every parameter is cut, and released after each use.
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 0,
    "stage3_prefetch_bucket_size": 1000,
    "overlap_comm": False,
}


@dataclass(frozen=True)
class EngineKind:
    """What an engine is built for; `deepspeed` is merged into its JSON file, `settings` into the recipe."""

    zero: int
    layout: str
    deepspeed: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "float32"


def recipe_of(case: Case, folder: Path, kind: EngineKind) -> Recipe:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"zero{kind.zero}.json"
    zero = {"stage": kind.zero, **ZERO_SETTINGS, **kind.deepspeed.get("zero_optimization", {})}
    write_json(path, {**kind.deepspeed, "zero_optimization": zero})  # ranks write it side by side: whole or not at all
    settings = {
        "model__backbone": "exactness",
        "model__embedding_dim": 16,
        "model__layout": case.layout,
        "model__similarity": case.similarity,
        "model__dropout": DROPOUT if case.dropout else 0.0,
        "data__lanes": 1,
        "data__max_query_tokens": QUERY_TOKENS,
        "data__max_passage_tokens": PASSAGE_TOKENS,
        "batch__queries": RAGGED_QUERIES,
        "batch__chunk_tokens": chunk_tokens(case),
        "loss__temperature": COSINE_TEMPERATURE if case.similarity == "cosine" else DOT_TEMPERATURE,
        "engine__deepspeed": str(path),
        "engine__gradient_reduction": case.reduction,
        "optimizer__name": "adamw",
        "optimizer__warmup_steps": 0,
    }
    return with_settings(Recipe(), **{**settings, **kind.settings})


def set_dropout(model: nn.Module, probability: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        elif isinstance(getattr(module, "dropout", None), float):
            # T5Attention hands a plain number to the attention function.
            module.dropout = probability  # type: ignore[assignment]


def switch(model: DualEncoder, case: Case) -> None:
    """Make a model (of the case's layout) compute the case: nothing here touches a parameter."""
    set_dropout(model, DROPOUT if case.dropout else 0.0)
    for tower in (model.query_tower, model.passage_tower):
        tower.normalize = case.similarity == "cosine"
        if case.checkpointing:
            tower.encoder.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            tower.encoder.gradient_checkpointing_disable()


class MatrixEngine:
    """A DeepSpeed engine whose optimizer keeps the gradients it is stepped with and leaves the weights as they are."""

    def __init__(self, case: Case, folder: Path, kind: EngineKind) -> None:
        self.kind = kind
        self.folder = folder
        recipe = recipe_of(case, folder, kind)
        self.engine = build_engine(build_dual_encoder(recipe.model), recipe)
        self.engine.train()
        self.groups = flat_groups(self.engine)
        self.shapes = {n: tuple(getattr(p, "ds_shape", p.shape)) for n, p in self.trainable()}
        self.is_replicated = all(group.replicated for group in self.groups)
        self.gradients: dict[str, tuple[ParameterSlice, torch.Tensor]] = {}
        client_optimizer(self.engine).step = self.keep_gradients  # type: ignore[method-assign]

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.engine.module.named_parameters() if p.requires_grad)

    def keep_gradients(self, closure: Any = None) -> None:
        """In the optimizer's place. ZeRO-3 comes here once for each sub-group, with the gradients of that one alone."""
        for group in self.groups:
            if group.gradient is not None:
                for held in group.slices:
                    self.gradients[held.name] = (held, held.of(group.gradient).clone())

    def recipe(self, case: Case) -> Recipe:
        return recipe_of(case, self.folder, self.kind)

    def close(self) -> None:
        self.engine.destroy()


@contextlib.contextmanager
def matrix_engine(case: Case, folder: Path, kind: EngineKind) -> Iterator[MatrixEngine]:
    made = MatrixEngine(case, folder, kind)
    try:
        yield made
    finally:
        made.close()
