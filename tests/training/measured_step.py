"""One real step on this rank, and its live tensor bytes by kind at the peak of each part of it."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from live_bytes import LiveBytes

from largede.config.batch import BatchPlan
from largede.config.recipe import Recipe
from largede.models.build import build_dual_encoder
from largede.streams.chunks import TokenRows
from largede.streams.tokenise import RankBatch
from largede.training.checkpoint import client_optimizer
from largede.training.engine import build_engine
from largede.training.gradcache import GradCacheStep

Peaks = dict[str, dict[str, int]]


def longest_batch(recipe: Recipe, rank: int, world: int) -> RankBatch:
    """The rows of `rank` with every text at its limit but one in each chunk, so that chunks hold padding and a mask."""
    data, B = recipe.data, len(BatchPlan(recipe.batch.queries, world).rows(rank))
    M = B * data.hard_negatives
    keys = np.arange(3 * B).reshape(B, 3) + rank * 10**6
    return RankBatch(
        step=0,
        queries=rows_of_length(B, data.max_query_tokens),
        passages=rows_of_length(B + M, data.max_passage_tokens),
        query_keys=keys,
        negative_keys=np.arange(3 * M).reshape(M, 3) + 10**7 * (rank + 1),
        sample_names=("",) * B,
        cut_texts=0,
    )


def rows_of_length(rows: int, tokens: int) -> TokenRows:
    generator = np.random.default_rng(0)
    # Every third row is one token short: no chunk of three rows or more is free of padding.
    lengths = [tokens - (i % 3 == 2) for i in range(rows)]
    return TokenRows.of([generator.integers(3, 60, max(1, n)).tolist() for n in lengths])


class MeasuredStep(GradCacheStep):
    """A step that notes the peak of its first pass, of scoring, and of the replay."""

    live: LiveBytes
    peaks: Peaks

    def __call__(self, batch: RankBatch) -> Any:
        self.live.restart()
        report = super().__call__(batch)
        self.peaks["replay"] = {**self.live.at_peak, "total": self.live.peak}
        return report

    def represent(self, side: Any, rows: Any) -> Any:
        first = super().represent(side, rows)
        self.live.follow(first.embedding_BD, "representations")
        self.live.follow_all(getattr(first, "outputs", []), "representations")
        return first

    def refuse_non_finite(self, *args: Any) -> None:
        """Called between scoring and replay."""
        self.peaks["score"] = {**self.live.at_peak, "total": self.live.peak}
        self.live.restart()
        super().refuse_non_finite(*args)


def measure_step(recipe: Recipe) -> Peaks:
    """Bytes by kind at the peak of each part of the second step (the first one records DeepSpeed's traces)."""
    model = build_dual_encoder(recipe.model)
    live = LiveBytes()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: live.follow(p.grad, "gradients") if p.grad is not None else None)
    engine = build_engine(model, recipe)
    step = MeasuredStep(engine, recipe)
    step.live, step.peaks = live, {}
    batch = longest_batch(recipe, dist.get_rank(), dist.get_world_size())
    step_plainly(engine, recipe, batch)
    with live:
        follow_engine(live, engine)
        step.peaks["between"] = {**live.bytes, "total": live.bytes.total()}
        step(batch)
        live.restart()
        engine.step()
        step.peaks["optimizer"] = {**live.at_peak, "total": live.peak}
    engine.destroy()
    return step.peaks


def step_plainly(engine: Any, recipe: Recipe, batch: RankBatch) -> None:
    GradCacheStep(engine, recipe)(batch)
    engine.step()


def follow_engine(live: LiveBytes, engine: Any) -> None:
    """What lives between steps, by identity."""
    zero, inner = engine.optimizer, client_optimizer(engine)
    model = list(engine.module.parameters())
    live.follow_all([getattr(p, "ds_tensor", None) for p in model], "parameters")
    live.follow_all([p.data for p in model], "parameters")
    live.follow_all([p.grad for p in model], "gradients")
    live.follow_all([p for g in inner.param_groups for p in g["params"]], "optimizer")
    live.follow_all(getattr(zero, "fp32_partitioned_groups_flat", []), "optimizer")
    live.follow_all([getattr(zero, "grad_partitions_flat_buffer", None)], "gradients")
    for state in inner.state.values():
        live.follow_all([t for t in state.values() if isinstance(t, torch.Tensor)], "optimizer")
    for moments in getattr(inner, "moments", {}).values():
        live.follow_all(moments.tensors().values(), "optimizer")
    for bucket in getattr(zero, "ipg_buckets", {}).values():
        buffers = bucket.buffer if isinstance(bucket.buffer, list) else [bucket.buffer]
        live.follow_all([b for b in buffers if b is not None], "buffers")
