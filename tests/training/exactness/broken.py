"""Steps that are wrong on purpose, each a mistake somebody made: the matrix has to notice every one of them."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch.distributed as dist
from torch import Tensor

from exactness.factors import Case
from exactness.measure import WatchedStep
from largede.config.recipe import LossConfig
from largede.training import scoring
from largede.training.collectives import RowLayout

NOTICED = 1e-2
"""A mistake must show as an error far above the tolerance."""


class NoWorldFactor(WatchedStep):
    def surrogate(self, output_bD: Tensor, chunk: Any, d_BD: Tensor) -> Tensor:
        return super().surrogate(output_bD, chunk, d_BD) / dist.get_world_size()


class LastChunkOnly(WatchedStep):
    """The plain loop over chunks: every backward pass believes to be the last of the step."""

    def carry_back(self, sides: Any) -> None:
        # Whatever the step says, the boundary stays where DeepSpeed starts with it.
        with mock.patch.object(self.engine, "set_gradient_accumulation_boundary"):
            super().carry_back(sides)


class NoReplay(WatchedStep):
    def replay(self, side: Any, first: Any, index: int, chunk: Any) -> Tensor:
        return self.embed(side, chunk)


class StaleGradients(WatchedStep):
    """What earlier steps left in ZeRO-3's buffers is added to the tower that is not in the first backward pass."""

    def __call__(self, batch: Any) -> Any:
        with mock.patch("largede.training.slices._forget_kept_gradients"):
            return super().__call__(batch)


def own_slice(layout: RowLayout, gradient_N: Tensor) -> Tensor:
    return gradient_N[layout.local]


def lost_temperature(similarities: Any, config: LossConfig, *rest: Any) -> Any:
    return RIGHT_GRADIENT(similarities, replace(config, temperature=1.0), *rest)


def one_layout(queries: RowLayout, negatives: RowLayout) -> RowLayout:
    counts = tuple(q + m for q, m in zip(queries.counts, negatives.counts, strict=True))
    return RowLayout(counts, queries.rank)


def gather_blocks(local_BM: Tensor, queries: RowLayout, negatives: RowLayout) -> Tensor:
    """Rank by rank, positives and negatives together, while the targets count positives alone."""
    return one_layout(queries, negatives).gather(local_BM)


def sum_back_blocks(gradient_C: Tensor, queries: RowLayout, negatives: RowLayout) -> Tensor:
    return one_layout(queries, negatives).sum_back(gradient_C)


RIGHT_GRADIENT = scoring.contrastive_gradient


@dataclass(frozen=True)
class Broken:
    """A mistake: its sentence, the cases where it can show, the step, and what is replaced while it runs.

    `shows_in_bf16`: it is one there, too.
    """

    sentence: str
    matters: str
    can_show: Callable[[Case], bool]
    step: type[WatchedStep] = WatchedStep
    replaced: tuple[tuple[Any, str, Any], ...] = ()
    shows_in_bf16: bool = True

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for owner, name, wrong in self.replaced:
                stack.enter_context(mock.patch.object(owner, name, wrong))
            yield


def has_two_towers(case: Case) -> bool:
    return case.layout != "sde"


BROKEN: dict[str, Broken] = {
    "no world factor": Broken(
        "the surrogate is not multiplied by the number of ranks, over which DeepSpeed averages",
        "more than one rank",
        lambda case: case.ranks > 1,
        NoWorldFactor,
    ),
    "last chunk only": Broken(
        "`engine.backward` for each chunk without setting the accumulation boundary",
        "ZeRO-1 and 2, reduced per chunk",
        lambda case: case.zero in (1, 2) and case.reduction == "per_chunk",
        LastChunkOnly,
        # DeepSpeed adds bf16 gradients up in float32 before it looks at the boundary.
        shows_in_bf16=False,
    ),
    "own-slice gather": Broken(
        "the gradient of gathered passages is cut to the local rows without the sum over ranks",
        "more than one rank",
        lambda case: case.ranks > 1,
        replaced=((RowLayout, "sum_back", own_slice),),
    ),
    "lost temperature": Broken(
        "the cached path scores without the temperature",
        "always",
        lambda case: True,
        replaced=((scoring, "contrastive_gradient", lost_temperature),),
    ),
    "misaligned hard negatives": Broken(
        "passages are gathered rank by rank with their hard negatives, targets count the positives alone",
        "more than one rank and hard negatives",
        lambda case: case.ranks > 1 and case.hard_negatives > 0,
        replaced=((scoring, "gather_both", gather_blocks), (scoring, "sum_back_both", sum_back_blocks)),
    ),
    "columns of one rank": Broken(
        "passage to query is normalised over the queries of one rank",
        "more than one rank",
        lambda case: case.ranks > 1,
        replaced=((scoring, "complete_over_ranks", lambda columns: None),),
    ),
    "no replay": Broken(
        "dropout falls anew in the second pass",
        "dropout",
        lambda case: case.dropout,
        NoReplay,
    ),
    "stale gradients": Broken(
        "ZeRO-3's gradient buffers are not cleared between steps",
        "ZeRO-3, reduced per chunk, two towers, from the second step on",
        lambda case: case.zero == 3 and case.reduction == "per_chunk" and has_two_towers(case),
        StaleGradients,
    ),
}
