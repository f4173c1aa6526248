"""Rows of the table beyond the product: other settings of the step and of DeepSpeed, and bf16."""

from dataclasses import dataclass, field
from typing import Any

from exactness.case_batch import QUERY_TOKENS
from exactness.engines import EngineKind, Precision
from exactness.factors import Case


@dataclass(frozen=True)
class Extra:
    """One row: what is set, at which stages, reductions and numbers of ranks it exists."""

    sentence: str
    zeros: tuple[int, ...] = (1, 2, 3)
    settings: dict[str, Any] = field(default_factory=dict)
    deepspeed: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "float32"
    reductions: tuple[str, ...] = ("per_chunk", "coalesced")
    ranks: tuple[int, ...] = (1, 2, 3, 4)
    dropouts: tuple[bool, ...] = (False, True)
    layouts: tuple[Any, ...] = ("sde", "ade")

    def kind(self, case: Case) -> EngineKind:
        return EngineKind(case.zero, case.layout, self.deepspeed, self.settings, self.precision)

    def cases(self, ranks: int) -> list[Case]:
        """Cosine, mixed lengths and, on several ranks, ragged rows: what is hardest."""
        if ranks not in self.ranks:
            return []
        rows = "even" if ranks == 1 else "ragged"
        return [
            Case(ranks, layout, zero, "cosine", "does not", rows, 7, dropout, False, reduction)
            for layout in self.layouts
            for zero in self.zeros
            for reduction in self.reductions
            for dropout in self.dropouts
            if (zero, reduction) != (0, "coalesced")
        ]


BF16 = {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
AUTOCAST = {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
OVERLAPPED = {"zero_optimization": {"overlap_comm": True}}
OFFLOADED = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}

EXTRAS: dict[str, Extra] = {
    "graphs kept": Extra(
        "`batch.gradient_cache: false`", (0, 1, 2, 3), {"batch__gradient_cache": False}, reductions=("per_chunk",)
    ),
    "larger first pass": Extra(
        "`batch.no_grad_chunk_tokens`, without dropout",
        (0, 1, 2, 3),
        {"batch__no_grad_chunk_tokens": 40 * QUERY_TOKENS},
        dropouts=(False,),
    ),
    "one direction, nothing masked": Extra(
        "`loss.passage_to_query: false`, `loss.mask_duplicates: false`",
        settings={"loss__passage_to_query": False, "loss__mask_duplicates": False},
        dropouts=(False,),
    ),
    "margin": Extra("`loss.margin: 0.05`", settings={"loss__margin": 0.05}, dropouts=(False,)),
    "scores in blocks": Extra("`loss.block_scores: 100`", settings={"loss__block_scores": 100}, dropouts=(False,)),
    "parameters resident": Extra("`engine.parameters: resident`", (3,), {"engine__parameters": "resident"}),
    "packed attention": Extra(
        "`engine.attention: packed`, without dropout (its chunks are others than the twin's)",
        (0, 1, 2, 3),
        {"engine__attention": "packed"},
        dropouts=(False,),
        layouts=("sde", "ade", "ade-ste", "ade-fte", "ade-spl"),
    ),
    "optimizer offloaded": Extra("`offload_optimizer: cpu`", deepspeed=OFFLOADED, layouts=("sde", "ade", "ade-fte")),
    "overlapped": Extra(
        "`overlap_comm: true`, as the files for GPUs have it",
        (2, 3),
        deepspeed=OVERLAPPED,
        layouts=("sde", "ade", "ade-ste"),
    ),
    "hpZ": Extra(
        "`zero_hpz_partition_size: 2`",
        (3,),
        deepspeed={"zero_optimization": {"zero_hpz_partition_size": 2}},
        ranks=(4,),
    ),
    "bf16 parameters": Extra("`bf16.enabled`, float32 accumulation", (2, 3), deepspeed=BF16, precision="bf16"),
    "bf16 autocast": Extra("`torch_autocast`", (1, 2, 3), deepspeed=AUTOCAST, precision="autocast"),
}
