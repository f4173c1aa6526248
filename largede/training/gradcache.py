"""The training step: represent, score, replay.

GradCache (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup") splits the
gradient of a contrastive loss at the representations: all chunks are embedded without a graph, the loss gives one
gradient per embedding, and each chunk is embedded again with a graph to carry that gradient on. Memory is one
chunk's, and the result equals the gradient of the whole batch.

What makes it exact under ZeRO: every rank calls the engine equally often for each side; the gradient is reduced per
chunk with the accumulation boundary on the last call alone; and the surrogate is scaled by the number of ranks,
because DeepSpeed averages over them while our loss is already divided by the global batch.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from largede.config.recipe import Recipe
from largede.errors import TrainingError
from largede.models.dual_encoder import SIDES, Side
from largede.streams.chunks import Chunk, Chunking, TokenRows, make_chunks, make_packed_chunks
from largede.streams.tokenise import RankBatch
from largede.training.collectives import max_over_ranks, objects_of_ranks, world_size
from largede.training.liveness.activity import pulse
from largede.training.scoring import BatchKeys, BatchScore, score_batch
from largede.training.slices import gradient_of_step


@dataclass
class RandomState:
    """The random state of the CPU and of this rank's GPU, so that dropout falls the same way twice."""

    cpu: Tensor = field(default_factory=torch.get_rng_state)
    gpu: Tensor | None = field(default_factory=lambda: torch.cuda.get_rng_state() if _has_cuda() else None)

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Inside, random numbers repeat from the captured state; afterwards they go on as if nothing had happened."""
        now = RandomState()
        self._set()
        try:
            yield
        finally:
            now._set()

    def _set(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu)


def _has_cuda() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()


@dataclass
class Embedded:
    """One side of the batch after the first pass: its chunks, their random states, and embeddings row by row."""

    chunks: list[Chunk]
    states: list[RandomState]
    embedding_BD: Tensor
    graphs: list[Tensor]


@dataclass(frozen=True)
class StepReport:
    """What one step tells the monitor: figures of the global batch, this rank's padding share, and its embeddings."""

    score: BatchScore
    padding_frac: float
    query_BD: Tensor
    positive_BD: Tensor


class GradCacheStep:
    """Computes the gradient of one contrastive batch into a DeepSpeed engine; the caller then steps the engine."""

    def __init__(self, engine: Any, recipe: Recipe) -> None:
        self.engine = engine
        self.batch = recipe.batch
        self.loss = recipe.loss
        self.has_dropout = recipe.model.dropout > 0
        self.first_budget_tokens = self.budget_of_first_pass()
        self.make_chunks: Callable[..., Sequence[Chunk]] = make_chunks
        if engine.module.is_packed:
            self.make_chunks = make_packed_chunks
        self.coalesced = recipe.engine.gradient_reduction == "coalesced"

    def budget_of_first_pass(self) -> int:
        # Kept graphs and replayed dropout tie the first pass to the chunks of the second.
        is_free = self.batch.gradient_cache and not self.has_dropout
        return (self.batch.no_grad_chunk_tokens if is_free else None) or self.batch.chunk_tokens

    @property
    def chunking(self) -> Chunking:
        """What is asked of `make_chunks`, for whoever plans ahead."""
        budgets = frozenset([self.first_budget_tokens, self.batch.chunk_tokens])
        return Chunking(self.engine.module.is_packed, budgets)

    def __call__(self, batch: RankBatch) -> StepReport:
        """Loss and gradient of the global batch of which `batch` holds this rank's rows. Collective."""
        rows = {"query": batch.queries, "passage": batch.passages}
        first_pass = {side: self.represent(side, rows[side]) for side in SIDES}
        gradient = score_batch(
            first_pass["query"].embedding_BD,
            first_pass["passage"].embedding_BD,
            self.keys_of(batch),
            self.loss,
        )
        self.refuse_non_finite(gradient.score, batch, first_pass)
        d_embedding = {"query": gradient.d_query_BD, "passage": gradient.d_passage_BMD}
        with gradient_of_step(self.engine):
            self.carry_back([(side, first_pass[side], rows[side], d_embedding[side]) for side in SIDES])
        computed = sum(chunk.computed_tokens for side in SIDES for chunk in first_pass[side].chunks)
        return StepReport(
            gradient.score,
            padding_frac=1.0 - batch.real_tokens / max(1, computed),
            query_BD=first_pass["query"].embedding_BD,
            positive_BD=first_pass["passage"].embedding_BD[: len(batch)],
        )

    def keys_of(self, batch: RankBatch) -> BatchKeys:
        arrays = (batch.query_keys, batch.answer_keys, batch.negative_keys)
        return BatchKeys(*(torch.from_numpy(keys).to(self.engine.device) for keys in arrays))

    def refuse_non_finite(self, score: BatchScore, batch: RankBatch, first_pass: dict[Side, Embedded]) -> None:
        """Stop all ranks together, naming the pairs at fault. The loss is a global sum, so all ranks see the same."""
        if math.isfinite(score.loss):
            return
        query_BD, passage_BMD = (first_pass[side].embedding_BD for side in SIDES)
        finite_B = query_BD.isfinite().all(1) & passage_BMD[: len(batch)].isfinite().all(1)
        own = [name for name, fine in zip(batch.sample_names, finite_B.tolist(), strict=True) if not fine]
        if not passage_BMD[len(batch) :].isfinite().all():
            own.append("a hard negative")
        named = [name for part in objects_of_ranks(own) for name in part]
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        raise TrainingError(
            f"the loss of step {batch.step} is {score.loss}; without finite embeddings: "
            f"{', '.join(named[:5]) or 'none, so the scores overflow'}{more}",
            expected="a finite loss",
            mend="continue from the last checkpoint with a lower learning rate; look at the pairs named above",
        )

    def represent(self, side: Side, rows: TokenRows) -> Embedded:
        """Embed every row of one side. With GradCache no graph is kept; random states are, when dropout needs them."""
        keeps_graph = not self.batch.gradient_cache
        chunks = self.equal_chunks(rows, self.first_budget_tokens)
        states: list[RandomState] = []
        outputs: list[Tensor] = []
        with torch.set_grad_enabled(keeps_graph):
            for chunk in chunks:
                if self.has_dropout:
                    states.append(RandomState())
                outputs.append(self.embed(side, chunk))
        embedding_BD = outputs[0].new_zeros(len(rows), outputs[0].shape[1])
        for chunk, output_bD in zip(chunks, outputs, strict=True):
            embedding_BD[chunk.rows] = output_bD.detach()[: len(chunk.rows)]
        return Embedded(chunks, states, embedding_BD, outputs if keeps_graph else [])

    def equal_chunks(self, rows: TokenRows, budget_tokens: int) -> list[Chunk]:
        """This rank's chunks, filled up to the largest number on any rank: under ZeRO-3 an extra call would hang."""
        device = self.engine.device
        chunks = self.make_chunks(rows, budget_tokens)
        missing = max_over_ranks(max(1, len(chunks)), device) - len(chunks)
        fillers = self.make_chunks(TokenRows.of([]), budget_tokens, at_least=missing)
        return [chunk.to(device) for chunk in (*chunks, *fillers)]

    def embed(self, side: Side, chunk: Chunk) -> Tensor:
        pulse()  # one rank alone has no collectives to show that it gets on
        # Always the engine, never engine.module: its hooks gather the parameters.
        return self.engine(side, *chunk.inputs)

    def carry_back(self, sides: list[tuple[Side, Embedded, TokenRows, Tensor]]) -> None:
        """Carry d loss / d embedding through the encoder into the engine's gradient."""
        if not self.batch.gradient_cache:
            self.backward_once(sides)
            return
        calls = [
            (side, first, index, chunk, d_BD)
            for side, first, rows, d_BD in sides
            for index, chunk in enumerate(self.chunks_with_gradient(first, rows))
        ]
        with self.engine.coalesce_grad_reduction() if self.coalesced else contextlib.nullcontext():
            for number, (side, first, index, chunk, d_BD) in enumerate(calls, start=1):
                if not self.coalesced:
                    self.engine.set_gradient_accumulation_boundary(number == len(calls))
                surrogate = self.surrogate(self.replay(side, first, index, chunk), chunk, d_BD)
                self.engine.backward(surrogate, scale_wrt_gas=False)
        self.engine.set_gradient_accumulation_boundary(True)

    def backward_once(self, sides: list[tuple[Side, Embedded, TokenRows, Tensor]]) -> None:
        """One backward pass through all kept graphs; a second one under ZeRO-3 would give a wrong gradient."""
        surrogates = [
            self.surrogate(output_bD, chunk, d_BD)
            for _, first, _, d_BD in sides
            for chunk, output_bD in zip(first.chunks, first.graphs, strict=True)
        ]
        self.engine.backward(torch.stack(surrogates).sum(), scale_wrt_gas=False)

    def chunks_with_gradient(self, first: Embedded, rows: TokenRows) -> list[Chunk]:
        """The first pass's own chunks where random states tie us to them, else chunks of the full budget."""
        if first.states or self.batch.no_grad_chunk_tokens is None:
            return first.chunks
        return self.equal_chunks(rows, self.batch.chunk_tokens)

    def replay(self, side: Side, first: Embedded, index: int, chunk: Chunk) -> Tensor:
        """Embed a chunk again, now with a graph; with dropout, the same units fall out as in the first pass."""
        with first.states[index].restored() if first.states else contextlib.nullcontext():
            return self.embed(side, chunk)

    def surrogate(self, output_bD: Tensor, chunk: Chunk, d_BD: Tensor) -> Tensor:
        """A scalar whose gradient is the chunk's share of the batch gradient; zero for a filler chunk."""
        if chunk.is_filler:
            return output_bD.sum() * 0.0
        # The one place that owns the scale: DeepSpeed averages over ranks, the loss is already a global mean.
        return (output_bD * d_BD[chunk.rows]).sum() * world_size()
