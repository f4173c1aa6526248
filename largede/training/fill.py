"""Weights from a source into an engine: each rank asks for its own slices of the masters and nothing else."""

from typing import Any

import torch

from largede.models.weights import WeightSource
from largede.training.collectives import rank
from largede.training.slices import flat_groups, spread_master_weights


def fill_engine(engine: Any, source: WeightSource) -> None:
    """Write a source's values into this rank's masters, and into the parameters made of them. Collective."""
    for group in flat_groups(engine):
        for held in group.slices:
            if held.length:
                held.of(group.flat).copy_(source.read(held.name, held.start, held.length))
    spread_master_weights(engine)
    _fill_frozen(engine, source)


def _fill_frozen(engine: Any, source: WeightSource) -> None:
    """Write the parameters that have no master because they are not trained. Collective."""
    frozen = {n: p for n, p in engine.module.named_parameters() if not p.requires_grad}
    if not frozen:
        return
    import deepspeed

    is_cut = engine.zero_optimization_stage() == 3
    for name, parameter in frozen.items():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=is_cut), torch.no_grad():
            if not is_cut or rank() == 0:
                parameter.copy_(source.read(name, 0, parameter.numel()).view(parameter.shape))
