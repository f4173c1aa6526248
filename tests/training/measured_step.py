"""One real step on this rank, and its live tensor bytes by kind at the peak of each part of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from live_bytes import LiveBytes

from largede.config.recipe import Recipe
from largede.models.build import build_structure
from largede.models.dual_encoder import SIDES
from largede.streams.chunks import TokenRows
from largede.streams.tokenise import RankBatch
from largede.training.construct import fill_engine, first_weights, sharding
from largede.training.dry_run import largest_batch
from largede.training.engine import build_engine
from largede.training.gradcache import GradCacheStep
from largede.training.optimizers import client_optimizer

Peaks = dict[str, dict[str, int]]


def longest_batch(recipe: Recipe) -> RankBatch:
    """The dry run's batch, with texts that leave padding in every chunk, so that there is a mask."""
    batch, data = largest_batch(recipe), recipe.data
    return replace(
        batch,
        queries=rows_of_length(len(batch.queries), data.max_query_tokens),
        passages=rows_of_length(len(batch.passages), data.max_passage_tokens),
    )


def rows_of_length(rows: int, tokens: int) -> TokenRows:
    generator = np.random.default_rng(0)
    # Every third row is one token short: no chunk of three rows or more is free of padding.
    lengths = [tokens - (i % 3 == 2) for i in range(rows)]
    return TokenRows.of([generator.integers(3, 60, max(1, n)).tolist() for n in lengths])


class MeasuredStep(GradCacheStep):
    """A step that notes the peaks of its first pass, of scoring, and of the replay."""

    live: LiveBytes
    peaks: Peaks

    def __call__(self, batch: RankBatch) -> Any:
        self.live.restart()
        report = super().__call__(batch)
        self.peaks["backward"] = {**self.live.at_peak, "total": self.live.peak}
        return report

    def represent(self, side: Any, rows: Any) -> Any:
        first = super().represent(side, rows)
        self.live.follow(first.embedding_BD, "representations")
        if side == SIDES[-1]:
            self.peaks["first pass"] = {**self.live.at_peak, "total": self.live.peak}
            self.live.restart()
        return first

    def refuse_non_finite(self, *args: Any) -> None:
        """Called between scoring and replay."""
        self.peaks["scoring"] = {**self.live.at_peak, "total": self.live.peak}
        self.live.restart()
        super().refuse_non_finite(*args)


def measure_step(recipe: Recipe) -> Peaks:
    """Bytes by kind at the peak of each part of the second step (the first makes moments and DeepSpeed's traces)."""
    live = LiveBytes()
    engine = followed_engine(recipe, live)
    step = MeasuredStep(engine, recipe)
    step.live, step.peaks = live, {}
    batch = longest_batch(recipe)
    GradCacheStep(engine, recipe)(batch)
    engine.step()
    with live:
        follow_engine(live, engine)
        report = step(batch)  # alive while the optimizer steps, as in the trainer
        live.restart()
        engine.step()
        step.peaks["optimizer"] = {**live.at_peak, "total": live.peak}
    del report
    engine.destroy()
    return step.peaks


def followed_engine(recipe: Recipe, live: LiveBytes) -> Any:
    """The trainer's engine, with a hook on each parameter that comes before DeepSpeed's own."""
    model = build_structure(recipe.model, sharding(recipe))
    source = first_weights(model, recipe.model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: live.follow_all([p.grad], "gradients"))
    engine = build_engine(model, recipe)
    fill_engine(engine, source)
    return engine


def follow_engine(live: LiveBytes, engine: Any) -> None:
    """What lives between steps, by identity."""
    zero, inner = engine.optimizer, client_optimizer(engine)
    model = list(engine.module.parameters())
    live.follow_all([p for g in inner.param_groups for p in g["params"]], "optimizer")
    live.follow_all(getattr(zero, "fp32_partitioned_groups_flat", []), "optimizer")
    # Without ZeRO the optimizer steps the parameters themselves; what ZeRO-3 holds whole beside its slices is gathered.
    live.follow_all([p.data for p in model], "gathered" if hasattr(model[0], "ds_tensor") else "parameters")
    live.follow_all([getattr(p, "ds_tensor", None) for p in model], "parameters")
    live.follow_all([getattr(zero, "grad_partitions_flat_buffer", None)], "gradients")
    for state in inner.state.values():
        live.follow_all([t for t in state.values() if isinstance(t, torch.Tensor)], "optimizer")
    for moments in getattr(inner, "moments", {}).values():
        live.follow_all(moments.tensors().values(), "optimizer")
    for bucket in getattr(zero, "ipg_buckets", {}).values():
        buffers = bucket.buffer if isinstance(bucket.buffer, list) else [bucket.buffer]
        live.follow_all([b for b in buffers if b is not None], "buffers")
