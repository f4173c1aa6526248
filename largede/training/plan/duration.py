"""How long a step takes: arithmetic, traffic between GPUs, the optimizer, and the loader.

The rule: arithmetic and the traffic of parameters and gradients run side by side where the DeepSpeed file overlaps them
(the longer one counts), else one after the other; representations and optimizer come on top; loader processes run
beside all that, a loader in the training process comes before it.

Forward pass F. The first pass costs F, the replay 3 F (4 F when activations are checkpointed); kept graphs cost 3 F in
all. Model FLOPs are 3 F over real tokens, so model FLOP utilisation counts neither the first pass, nor recomputation,
nor padding as useful.
"""

from dataclasses import dataclass

from largede.config.deepspeed import ZeroSettings
from largede.streams.tiles import TILE_TOKENS
from largede.training.plan.chunks import ChunkShape, SideChunks, sides_of_rank
from largede.training.plan.machine import Machine
from largede.training.plan.memory import FLOAT32, Setup, moments

GB = 1e9
FLOAT32_SLOWDOWN = 16
"""Times that float32 arithmetic (the loss) is slower than bf16 on the same GPU."""
OPTIMIZER_BYTES = 40
"""GPU memory traffic of an optimizer's step per element it holds."""
ACCUMULATION_BYTES = 16
"""GPU memory traffic of one backward pass per element of the model: a gradient written, copied, added in float32."""
HOST_ELEMENTS_PER_S = 2e8
"""Elements that an offloaded optimizer steps in a second, per rank: an assumption."""
BYTES_PER_TOKEN = 4.5
"""English text per token of T5's vocabulary."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step, and what they are made of; `model_flops` of one rank."""

    arithmetic_s: float
    gathers_s: float
    reductions_s: float
    representations_s: float
    optimizer_s: float
    loader_s: float
    overlaps: bool
    loader_is_apart: bool
    model_flops: float

    @property
    def gpu_s(self) -> float:
        traffic_s = self.gathers_s + self.reductions_s
        both_s = max(self.arithmetic_s, traffic_s) if self.overlaps else self.arithmetic_s + traffic_s
        return both_s + self.representations_s + self.optimizer_s

    @property
    def step_s(self) -> float:
        return max(self.gpu_s, self.loader_s) if self.loader_is_apart else self.gpu_s + self.loader_s

    @property
    def bound_by(self) -> str:
        """The part that would have to shrink first."""
        if self.loader_s >= self.gpu_s:
            return "loader"
        parts = {
            "arithmetic": self.arithmetic_s,
            "traffic of parameters and gradients": self.gathers_s + self.reductions_s,
            "representations": self.representations_s,
            "optimizer": self.optimizer_s,
        }
        return max(parts, key=parts.__getitem__)


def step_time(setup: Setup, machine: Machine) -> StepTime:
    sides = mean_sides(setup, machine)
    work, model_flops = arithmetic(setup, sides)
    traffic = Traffic(setup, machine)
    workers = setup.recipe.data.workers
    loaded_per_s = machine.loader_pairs_per_s * max(1, workers) * machine.gpus
    return StepTime(
        arithmetic_s=work / (machine.gpu_tflops * 1e12 * machine.mfu) + accumulation_s(setup, sides, machine),
        gathers_s=traffic.gathers_s(sides) if machine.gpus > 1 or setup.zero.parameters_on != "none" else 0.0,
        reductions_s=traffic.reductions_s(sides),
        representations_s=traffic.representations_s(),
        optimizer_s=optimizer_s(setup, machine),
        loader_s=setup.recipe.batch.queries / loaded_per_s,
        overlaps=setup.zero.overlap_comm,
        loader_is_apart=workers > 0,
        model_flops=model_flops,
    )


def mean_tokens(setup: Setup, machine: Machine) -> tuple[float, float]:
    """Mean real tokens of a query and of a passage: as given, else half the limits."""
    data = setup.recipe.data
    query = machine.query_tokens or data.longest_query_tokens / 2
    passage = machine.passage_tokens or data.longest_passage_tokens / 2
    return min(query, data.longest_query_tokens), min(passage, data.longest_passage_tokens)


def mean_sides(setup: Setup, machine: Machine) -> tuple[SideChunks, SideChunks]:
    return sides_of_rank(setup.recipe, machine.gpus, setup.kernel, *mean_tokens(setup, machine))


def forward_flops(setup: Setup, tokens: float, reach: float) -> float:
    """One encoder over `tokens`, each attending to `reach` others; two operations per multiplication and addition."""
    shape = setup.model.encoder
    per_token = 2 * setup.model.layer_matrices + 4 * shape.heads * shape.d_kv * reach
    return shape.layers * tokens * per_token


def arithmetic(setup: Setup, sides: tuple[SideChunks, SideChunks]) -> tuple[float, float]:
    """(operations of one rank's step, those that count as the model's)."""
    recipe = setup.recipe
    again = 4 if recipe.engine.activation_checkpointing else 3
    work = model = 0.0
    for side in sides:
        reach = _reach(setup, side.with_gradient)
        forward = forward_flops(setup, side.tokens, reach)
        work += forward * (again + 1 if recipe.batch.gradient_cache else again)
        model += 3 * forward_flops(setup, side.tokens, side.length)
    queries, passages = (side.texts for side in sides)
    scores = queries * passages * setup.ranks
    passes = 2 if scores > recipe.loss.block_scores else 1
    loss = 2 * scores * setup.model.embedding_dim * (2 + passes)
    return work + loss * FLOAT32_SLOWDOWN, model


def accumulation_s(setup: Setup, sides: tuple[SideChunks, SideChunks], machine: Machine) -> float:
    """What each backward pass costs whatever the size of its chunk: gradients written, copied, added to the others."""
    passes = sum(s.with_gradient.count for s in sides) if setup.recipe.batch.gradient_cache else 1
    per_pass = ACCUMULATION_BYTES * setup.model.trained / setup.model.towers
    return passes * per_pass / (machine.hbm_gbs * GB)


def _reach(setup: Setup, chunk: ChunkShape) -> float:
    """Tokens that one token's attention computes: packed, whole tiles at either end of its text."""
    return chunk.length + TILE_TOKENS if setup.kernel == "flex" else chunk.length


class Traffic:
    """Seconds that one GPU's links are busy, ring collectives assumed."""

    def __init__(self, setup: Setup, machine: Machine) -> None:
        self.setup = setup
        self.machine = machine
        self.zero: ZeroSettings = setup.zero

    def spread_s(self, count: float, *, within_node: bool = False) -> float:
        """Every rank ends with `count` bytes of which it had its share (or the reverse): a gather, or a scatter.

        Inside a node each GPU takes in all but its own; between nodes the GPUs of a node share the taking in.
        """
        m = self.machine
        inside = count * (m.gpus_per_node - 1) / m.gpus_per_node / (m.link_gbs * GB)
        if m.nodes == 1 or within_node:
            return inside
        between = count * (m.nodes - 1) / m.nodes / m.gpus_per_node / (m.network_gbs * GB)
        return max(inside, between)

    def gathers_s(self, sides: tuple[SideChunks, SideChunks]) -> float:
        """Whole parameters: at ZeRO-3 once per forward and once per backward pass of a chunk (recomputed activations
        find them there; a backward pass through all kept graphs needs two); once per step at ZeRO-1 and 2, or when they
        are resident. Counted on two ranks: 15.6 gathers for 5 + 5 chunks, 6.9 for 5 kept graphs.
        """
        setup, zero = self.setup, self.zero
        if zero.stage == 0:
            return 0.0
        # Under autocast bf16 travels.
        width = FLOAT32 if zero.precision == "float32" else 2
        model_bytes = width * setup.model.parameters
        if zero.stage < 3 or setup.is_resident:
            return self.spread_s(model_bytes)
        tower_bytes = width * setup.model.tower_parameters
        first, replay = sum(s.first_pass.count for s in sides), sum(s.with_gradient.count for s in sides)
        times = first + 2 * replay if setup.recipe.batch.gradient_cache else replay + 2
        from_host_s = times * tower_bytes / setup.ranks / (self.machine.host_link_gbs * GB)
        from_host_s *= zero.parameters_on != "none"
        if zero.hpz > 1:
            # The first gather of a step crosses the network and leaves a copy inside the node.
            return from_host_s + self.spread_s(model_bytes) + times * self.spread_s(tower_bytes, within_node=True)
        return from_host_s + times * self.spread_s(tower_bytes)

    def reductions_s(self, sides: tuple[SideChunks, SideChunks]) -> float:
        """Gradients: after each chunk at ZeRO-2 and 3, else once; a scatter at ZeRO-3, elsewhere both ways."""
        setup, zero = self.setup, self.zero
        if setup.ranks == 1:
            return 0.0
        width = FLOAT32 if zero.precision == "float32" else 2
        once = zero.stage < 2 or setup.coalesced or not setup.recipe.batch.gradient_cache
        times = 1 if once else sum(s.with_gradient.count for s in sides)
        share = setup.model.trained / setup.model.towers if times > 1 else setup.model.trained
        return times * (1 if zero.stage == 3 else 2) * self.spread_s(width * share)

    def representations_s(self) -> float:
        """Passages gathered, their gradient scattered back."""
        setup = self.setup
        if setup.ranks == 1:
            return 0.0
        count = FLOAT32 * setup.model.embedding_dim * setup.sides[1].texts * setup.ranks
        return 2 * self.spread_s(count)


def optimizer_s(setup: Setup, machine: Machine) -> float:
    """One pass over what a rank holds, or the same in main memory with the way there and back; Adafactor's sums."""
    held = setup.model.trained if setup.zero.stage == 0 else setup.shard
    sums_s = 0.0
    if setup.recipe.optimizer.name == "adafactor" and setup.ranks > 1 and setup.zero.stage > 0:
        sums_s = 2 * Traffic(setup, machine).spread_s(moments(setup, held))
    if setup.zero.optimizer_on == "none":
        return held * OPTIMIZER_BYTES / (machine.hbm_gbs * GB) + sums_s
    travel_s = held * (FLOAT32 + setup.zero.parameter_bytes) / (machine.host_link_gbs * GB)
    return travel_s + held / HOST_ELEMENTS_PER_S + sums_s
