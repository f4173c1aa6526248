"""The plain twin: the same batch in one process and one graph, by autograd alone.

No DeepSpeed, no collective, no replay, no closed-form gradient. It embeds the same chunks as the ranks do, with each
rank's own random numbers, because dropout falls by chunk and because floating-point sums depend on shapes; without
dropout and in float64, its chunks make no difference (`test_exactness.py` holds it to that).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exactness.case_batch import CaseBatch
from exactness.engines import EngineKind, recipe_of, switch
from exactness.factors import Case
from largede.config.recipe import Recipe
from largede.models.build import build_dual_encoder
from largede.models.dual_encoder import SIDES, DualEncoder, Side
from largede.objectives.contrastive import Keys, dense_contrastive_loss
from largede.streams.chunks import Chunk, TokenRows, make_chunks
from largede.training.gradcache import RandomState


@dataclass(frozen=True)
class Truth:
    """The loss of the whole batch and its gradient, by parameter, frozen ones left out.

    `cancellation` (bf16 only): by parameter, the sum of the lengths of its chunks' gradients over the length of their
    sum. Rounding errors grow with the former, so this is by how much they are larger relative to the result.
    """

    loss: float
    gradients: dict[str, Tensor]
    cancellation: dict[str, float]


def seed_of(rank: int) -> int:
    """Dropout's seed; the trainer, too, gives each rank its own."""
    return 1000 + rank


def plain_truth(case: Case, folder: Path, kind: EngineKind, seed: int = 0) -> Truth:
    """What the step must give, whatever the case's ZeRO stage, reduction and checkpointing."""
    recipe = recipe_of(case, folder, kind)
    model = build_dual_encoder(recipe.model)
    switch(model, replace(case, checkpointing=False))
    model.train()
    batch = CaseBatch(case, seed)
    if kind.precision == "float32":
        return truth_of(model, recipe, batch, case.ranks)
    return truth_in_bf16(model, recipe, batch, case.ranks, kind.precision)


def truth_of(model: DualEncoder, recipe: Recipe, batch: CaseBatch, ranks: int) -> Truth:
    loss = contrastive_loss(embed_batch(model, recipe, batch, ranks), batch, recipe)
    loss.backward()
    return Truth(float(loss.detach()), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, {})


def truth_in_bf16(model: DualEncoder, recipe: Recipe, batch: CaseBatch, ranks: int, precision: str) -> Truth:
    """The same dtype as the engine's: bf16 forward and backward for each chunk; chunks and ranks added in float32.

    Scores are read from a pass without gradients, as in the step: without dropout the CPU's attention then takes
    another kernel, which rounds to bf16 elsewhere, and a temperature of 0.01 makes rounding 100 times larger.
    """
    if precision == "bf16":
        model.bfloat16()
    parts: list[tuple[Tensor, Tensor]] = []

    def embed(side: Side, token_BL: Tensor, mask_BL: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            with RandomState().restored(), torch.no_grad():
                scored_bD = model(side, token_BL, mask_BL)
            output_bD = model(side, token_BL, mask_BL)
        parts.append((output_bD, scored_bD.requires_grad_()))
        return scored_bD

    loss = contrastive_loss(embed_batch(embed, recipe, batch, ranks), batch, recipe)
    loss.backward()
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    total = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in named.items()}
    lengths = dict.fromkeys(named, 0.0)
    for output_bD, scored_bD in parts:
        if scored_bD.grad is None:
            continue  # a filler chunk
        ours = torch.autograd.grad(output_bD, list(named.values()), scored_bD.grad, allow_unused=True)
        for name, gradient in zip(named, ours, strict=True):
            if gradient is not None:
                total[name] += gradient.float()
                lengths[name] += float(gradient.float().norm())
    return Truth(float(loss.detach()), total, {n: lengths[n] / float(g.norm()) for n, g in total.items()})


def contrastive_loss(embedded: dict[Side, list[Tensor]], batch: CaseBatch, recipe: Recipe) -> Tensor:
    """The dense loss of embeddings by side and rank; a rank's passages are its positives, then its hard negatives."""
    queries = embedded["query"]
    positive_ND = torch.cat([passages[: len(q)] for q, passages in zip(queries, embedded["passage"], strict=True)])
    negative_MD = torch.cat([passages[len(q) :] for q, passages in zip(queries, embedded["passage"], strict=True)])
    query_keys = Keys(torch.from_numpy(batch.query_keys), torch.from_numpy(batch.answer_keys))
    keys: Any = (query_keys, Keys(torch.from_numpy(batch.negative_keys)))
    return dense_contrastive_loss(
        torch.cat(queries),
        positive_ND,
        negative_MD,
        *(keys if recipe.loss.mask_duplicates else (None, None)),
        temperature=recipe.loss.temperature,
        passage_to_query=recipe.loss.passage_to_query,
        margin=recipe.loss.margin,
    )


def embed_batch(
    embed: Callable[[Side, Tensor, Tensor], Tensor], recipe: Recipe, batch: CaseBatch, ranks: int
) -> dict[Side, list[Tensor]]:
    """Embeddings of each rank's rows, by side, with a graph; every rank draws its own random numbers."""
    embedded: dict[Side, list[Tensor]] = {side: [] for side in SIDES}
    plans = {side: chunks_of_ranks(batch, side, recipe.batch.chunk_tokens, ranks) for side in SIDES}
    for rank in range(ranks):
        torch.manual_seed(seed_of(rank))
        for side in SIDES:
            outputs = [embed(side, chunk.token_BL, chunk.mask_BL) for chunk in plans[side][rank]]
            embedded[side].append(rows_in_order(outputs, plans[side][rank]))
    return embedded


def chunks_of_ranks(batch: CaseBatch, side: Side, budget_tokens: int, ranks: int) -> list[list[Chunk]]:
    """Each rank's chunks. Filler chunks matter here only in that they draw random numbers, too."""
    rows: list[TokenRows] = []
    for rank in range(ranks):
        held = batch.of_rank(rank, ranks)
        rows.append(held.queries if side == "query" else held.passages)
    most = max(len(make_chunks(r, budget_tokens)) for r in rows)
    return [make_chunks(r, budget_tokens, at_least=most) for r in rows]


def rows_in_order(outputs: list[Tensor], chunks: list[Chunk]) -> Tensor:
    real = [(output, chunk) for output, chunk in zip(outputs, chunks, strict=True) if not chunk.is_filler]
    order = torch.cat([chunk.rows for _, chunk in real])
    return torch.cat([output for output, _ in real])[torch.argsort(order)]
