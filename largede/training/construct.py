"""A recipe into an engine with its first weights, without any host ever holding a whole sharded model.

Under ZeRO-3 a T5's parameters are cut at birth; then each rank asks the source of weights (fresh, or files read by
range) for its own slices of the float32 masters and nothing else. So an XXL model starts on hosts that could not hold
it, and masters start exact even where the parameters are bf16.
"""

import contextlib
from typing import Any

from largede.config.batch import BatchPlan
from largede.config.recipe import ModelConfig, Recipe
from largede.models.build import build_dual_encoder, build_structure, is_t5
from largede.models.presets import PRESETS
from largede.models.weights import FreshWeights, PretrainedWeights, WeightSource
from largede.training.adafactor import ZeroAdafactor
from largede.training.engine import build_engine, deepspeed_config
from largede.training.fill import fill_engine


def build_filled_engine(recipe: Recipe, optimizer_type: type[ZeroAdafactor] = ZeroAdafactor) -> Any:
    """The engine of this rank with the first weights of the recipe's model. Collective.

    Raises:
        LargedeError: the backbone or the DeepSpeed file cannot be used.
    """
    if not is_t5(recipe.model):
        # A BERT brings buffers and layouts of its own; it is small enough to be whole on every rank.
        return build_engine(build_dual_encoder(recipe.model), recipe, optimizer_type)
    model = build_structure(recipe.model, sharding(recipe))
    source = first_weights(model, recipe.model)
    engine = build_engine(model, recipe, optimizer_type)
    fill_engine(engine, source)
    return engine


def sharding(recipe: Recipe) -> contextlib.AbstractContextManager[Any]:
    """Inside, parameters are cut over the ranks as soon as they are made; only ZeRO-3 does that."""
    from deepspeed import comm, zero

    config = deepspeed_config(recipe, BatchPlan(recipe.batch.queries, comm.get_world_size()))
    if config.get("zero_optimization", {}).get("stage", 0) != 3:
        return contextlib.nullcontext()
    # No dtype is passed: where fp16 is missing, DeepSpeed 0.19 would put bf16 in its place; the config's it heeds.
    return zero.Init(config_dict_or_path=config)


def first_weights(model: Any, config: ModelConfig) -> WeightSource:
    fresh = FreshWeights(model, config.seed)
    return fresh if config.backbone in PRESETS else PretrainedWeights(config.backbone, fresh)
