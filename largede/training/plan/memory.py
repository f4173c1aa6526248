"""Bytes on one GPU at each moment of the step, by kind, and bytes in the main memory of a node.

The moments are those at which memory can be at its fullest:

| moment       | what is alive then beside what always is                                                     |
|--------------|----------------------------------------------------------------------------------------------|
| first pass   | the activations of one chunk without graph                                                   |
| scoring      | gathered representations, their gradients, blocks of scores                                  |
| backward     | a chunk's graph (or all graphs), at the last layer; gradients of earlier chunks              |
| reduction    | the end of that backward pass: little graph, all gradients, what DeepSpeed copies them into  |
| optimizer    | the flattened gradient and the optimizer's temporaries                                       |

Kinds: parameters; gathered (ZeRO-3's whole parameters); gradients; optimizer (float32 masters, moments, temporaries);
activations; representations (with scores); buffers. Figures follow DeepSpeed 0.19's code and were measured against it
(README.md beside this file).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from largede.config.deepspeed import ZeroSettings, read_deepspeed_file, zero_settings
from largede.config.recipe import Recipe
from largede.training.plan.activations import Activations
from largede.training.plan.chunks import Kernel, SideChunks, kernel_of, sides_of_rank
from largede.training.plan.machine import Machine
from largede.training.plan.shape import ModelShape, Weight, model_shape

KINDS = ("parameters", "gathered", "gradients", "optimizer", "activations", "representations", "buffers")
MOMENTS = ("first pass", "scoring", "backward", "reduction", "optimizer")
FLOAT32 = 4

Bytes = dict[str, float]


@dataclass(frozen=True)
class Setup:
    """Everything the bytes depend on."""

    recipe: Recipe
    zero: ZeroSettings
    model: ModelShape
    ranks: int
    kernel: Kernel
    sides: tuple[SideChunks, ...]

    @property
    def shard(self) -> int:
        """Trained elements of one rank's slice."""
        return math.ceil(self.model.trained / self.ranks)

    @property
    def is_resident(self) -> bool:
        return self.recipe.engine.parameters == "resident"

    @property
    def coalesced(self) -> bool:
        return self.recipe.engine.gradient_reduction == "coalesced"

    @property
    def backward_passes(self) -> int:
        if not self.recipe.batch.gradient_cache:
            return 1
        return sum(side.with_gradient.count for side in self.sides)

    @property
    def activations(self) -> Activations:
        return Activations(
            encoder=self.model.encoder,
            precision=self.zero.precision,
            kernel=self.kernel,
            dropout=self.recipe.model.dropout > 0,
            checkpointed=self.recipe.engine.activation_checkpointing,
            cast_weights=self.model.layer_matrices,
        )


def setup_of(recipe: Recipe, machine: Machine) -> Setup:
    """Texts at their limits: what has to fit. Raises RecipeError or ModelError."""
    zero = zero_settings(read_deepspeed_file(recipe.engine.deepspeed))
    kernel = kernel_of(recipe, machine)
    data = recipe.data
    sides = sides_of_rank(recipe, machine.gpus, kernel, data.longest_query_tokens, data.longest_passage_tokens)
    return Setup(recipe, zero, model_shape(recipe.model, recipe.optimizer.rate_factors), machine.gpus, kernel, sides)


def bytes_at_moments(setup: Setup) -> dict[str, Bytes]:
    """`{moment: {kind: bytes on the GPU}}`."""
    always = {
        "parameters": parameters(setup),
        "optimizer": 0.0 if setup.zero.optimizer_on != "none" else optimizer_state(setup),
        "buffers": standing_buffers(setup),
    }
    return {
        moment: {kind: float(always.get(kind, 0.0) + extra.get(kind, 0.0)) for kind in KINDS}
        for moment, extra in zip(MOMENTS, _extras(setup), strict=True)
    }


def _extras(setup: Setup) -> Iterator[Bytes]:
    """What each moment has beside what always is, in the order of MOMENTS."""
    acts, held = setup.activations, representations(setup)
    whole = {"gathered": gathered(setup) + resident(setup)}
    in_first_pass = {"gathered": max(reused(setup), gathered(setup)) + resident(setup)}
    fullest = max(acts.backward_chunk(s.with_gradient) for s in setup.sides)
    working = max(acts.backward_chunk(s.with_gradient) - acts.kept_chunk(s.with_gradient) for s in setup.sides)
    first, graphs = max(acts.forward_chunk(s.first_pass) for s in setup.sides), 0.0
    if not setup.recipe.batch.gradient_cache:
        graphs = sum(acts.kept_chunk(s.with_gradient) * s.with_gradient.count for s in setup.sides)
        first, fullest = graphs, graphs + working
    standing = gradients_standing(setup)
    yield {**in_first_pass, "activations": first, "representations": held, "gradients": standing}
    yield {
        "gathered": resident(setup),
        "activations": graphs,
        "representations": held + scoring(setup),
        "gradients": standing,
    }
    yield {
        **whole,
        "activations": fullest,
        "representations": 2 * held,
        "gradients": gradients_before_backward(setup),
        "buffers": 0.0 if setup.coalesced else bucket_buffers(setup),
    }
    yield {
        **whole,
        "activations": working + (fullest - working) * graph_at_first_reduction(setup),
        "representations": 2 * held,
        "gradients": gradients_after_backward(setup),
        "buffers": bucket_buffers(setup) + reduction_copies(setup),
    }
    yield {
        "representations": held,
        "gradients": gradients_in_optimizer(setup),
        "optimizer": optimizer_temporaries(setup),
    }


def parameters(setup: Setup) -> float:
    """As the model computes with them: whole, or this rank's slice of each at ZeRO-3 and the small ones whole."""
    width = setup.zero.parameter_bytes
    if setup.zero.stage < 3:
        return width * setup.model.parameters
    if setup.zero.parameters_on != "none":
        return 0.0
    return width * sum(slice_of(w, setup.ranks) for w in setup.model.weights)


def slice_of(weight: Weight, ranks: int) -> int:
    return math.ceil(weight.numel / ranks)


def gathered(setup: Setup) -> float:
    """Whole parameters that ZeRO-3 holds at a time: those in use, and those fetched ahead.

    One is in use, the largest at worst; fetching ahead stops with the parameter that fills the prefetch bucket. It
    needs a trace of the model, which two towers never give. A block that is recomputed stays whole until it is done.
    A single rank gathers nothing.
    """
    zero, model = setup.zero, setup.model
    if zero.stage < 3 or (setup.ranks == 1 and zero.parameters_on == "none"):
        return 0.0
    persistent = sum(w.numel for w in model.weights if w.numel <= zero.persistence_threshold)
    secondary = model.parameters / zero.hpz if zero.hpz > 1 else 0
    if setup.is_resident:
        return zero.parameter_bytes * secondary
    in_use = model.largest
    if model.towers == 1 and zero.prefetch_bucket:
        in_use += min(zero.prefetch_bucket + model.largest, 2 * model.largest)
    if setup.recipe.engine.activation_checkpointing:
        in_use += model.layer_matrices
    return zero.parameter_bytes * (min(model.parameters, in_use) + persistent + secondary)


def reused(setup: Setup) -> float:
    """The pass without gradients keeps what the trace says will be used again soon: for a small model, all of it."""
    zero, model = setup.zero, setup.model
    is_traced = model.towers == 1 and setup.recipe.batch.gradient_cache
    if zero.stage < 3 or setup.ranks == 1 or setup.is_resident or not is_traced or not zero.prefetch_bucket:
        return 0.0
    return float(zero.parameter_bytes * min(model.parameters, zero.max_reuse_distance))


def resident(setup: Setup) -> float:
    """The whole copy that `engine.parameters: resident` keeps between chunks."""
    if setup.zero.stage < 3 or not setup.is_resident or setup.ranks == 1:
        return 0.0
    return setup.zero.parameter_bytes * setup.model.parameters


def optimizer_state(setup: Setup) -> float:
    """Float32 masters (none without ZeRO: the parameters are float32) and moments."""
    held = setup.model.trained if setup.zero.stage == 0 else setup.shard
    masters = 0 if setup.zero.stage == 0 else FLOAT32 * held
    return masters + moments(setup, held)


def moments(setup: Setup, held: int) -> float:
    """AdamW: two numbers per held element. Adafactor: a row and a column per matrix, the same on every rank."""
    config = setup.recipe.optimizer
    if config.name == "adamw":
        return 2.0 * FLOAT32 * held
    trained = [w for w in setup.model.weights if w.trained]
    return float(FLOAT32 * sum(_adafactor_numbers(w.shape, config.factor_from) for w in trained))


def _adafactor_numbers(shape: tuple[int, ...], factor_from: int) -> int:
    factored = len(shape) == 2 and min(shape) >= factor_from
    return sum(shape) if factored else math.prod(shape)


def largest_group(setup: Setup) -> int:
    """Elements of the largest flat tensor that is stepped at once on this rank."""
    trained = [w for w in setup.model.weights if w.trained]
    if setup.zero.stage == 0:
        return max(w.numel for w in trained)
    if setup.zero.stage < 3:
        return setup.shard
    sizes, size = [], 0
    for weight in trained:
        size += slice_of(weight, setup.ranks)
        if size >= setup.zero.sub_group:
            sizes.append(size)
            size = 0
    return max([*sizes, size])


def optimizer_temporaries(setup: Setup) -> float:
    """AdamW: torch works on all tensors of a group together, with two temporaries of their size. Adafactor: one slice
    of one parameter at a time; at ZeRO-1 and 2 that is past the fullest moment, when gradients have been copied."""
    if setup.zero.optimizer_on != "none":
        return 0.0
    if setup.recipe.optimizer.name == "adamw":
        return 2.0 * FLOAT32 * (setup.model.trained if setup.zero.stage == 0 else largest_group(setup))
    if setup.zero.stage in (1, 2):
        return 0.0
    largest = max((w for w in setup.model.weights if w.trained), key=lambda w: w.numel)
    return float(FLOAT32 * (largest.numel if setup.zero.stage == 0 else slice_of(largest, setup.ranks)))


def gradients_standing(setup: Setup) -> float:
    """Between steps: ZeRO-3 keeps its flat float32 buffer, the other stages free theirs."""
    return FLOAT32 * setup.shard if setup.zero.stage == 3 and setup.zero.optimizer_on == "none" else 0.0


def accumulated(setup: Setup) -> float:
    """Gradients of earlier chunks, as they wait for the next chunk."""
    zero = setup.zero
    own = FLOAT32 * setup.shard if zero.optimizer_on == "none" else 0.0
    if setup.coalesced:
        return zero.parameter_bytes * setup.model.trained + (own if zero.stage == 3 else 0.0)
    if zero.stage < 2:
        # Chunks of queries come first: a single chunk of passages finds the gradients of their tower alone.
        one_tower = setup.model.towers == 2 and setup.sides[1].with_gradient.count == 1
        return FLOAT32 * setup.model.trained / (2 if one_tower else 1)
    return own + (FLOAT32 * _cut_parameter(setup) if _keeps_views(setup) else 0.0)


def _keeps_views(setup: Setup) -> bool:
    """ZeRO-1 and 2 with float32 parameters add gradients up parameter by parameter; with bf16 in one flat buffer."""
    return setup.zero.stage in (1, 2) and setup.zero.precision != "bf16"


def _cut_parameter(setup: Setup) -> float:
    """A parameter that the ranks' border cuts is kept whole by both; on average half of the largest is foreign."""
    return 0.0 if setup.ranks == 1 else setup.model.largest / 2


def gradients_before_backward(setup: Setup) -> float:
    return accumulated(setup) if setup.backward_passes > 1 else gradients_standing(setup)


def gradients_after_backward(setup: Setup) -> float:
    """All of them, the newest chunk's beside the accumulated ones where DeepSpeed keeps both."""
    if setup.zero.optimizer_on != "none" and not setup.coalesced and setup.zero.stage >= 2:
        return float(setup.zero.parameter_bytes * setup.model.largest)
    total = accumulated(setup)
    if _keeps_views(setup):
        total += FLOAT32 * (setup.shard + _cut_parameter(setup)) if setup.zero.optimizer_on == "none" else 0.0
        total += zeros_of_other_tower(setup)
    elif setup.coalesced and setup.zero.stage < 3:
        total += FLOAT32 * setup.shard if setup.zero.optimizer_on == "none" else 0.0
    return total


def zeros_of_other_tower(setup: Setup) -> float:
    """ZeRO-2 that adds up by parameter makes zeros for the tower that a chunk did not reach, and keeps them."""
    needs_them = setup.model.towers == 2 and setup.zero.stage == 2 and setup.zero.optimizer_on == "none"
    return FLOAT32 * setup.shard / 2 if needs_them and _keeps_views(setup) and not setup.coalesced else 0.0


def graph_at_first_reduction(setup: Setup) -> float:
    """Share of the graph that is still alive when the first bucket is full and DeepSpeed makes room for its copies.

    ZeRO-1 and 2 make that room, all of it, at the first bucket; at ZeRO-3 it is there from the start.
    """
    if not _keeps_views(setup) or setup.coalesced:
        return 0.0
    return max(0.0, 1 - setup.zero.reduce_bucket / setup.model.tower_parameters)


def gradients_in_optimizer(setup: Setup) -> float:
    """The gradient, and its copy: of a sub-group at ZeRO-3; of all of it at ZeRO-1 and 2 where it was added up by
    parameter (AdamW's temporaries come when the pieces are gone), else of the largest in float64, for its norm."""
    zero = setup.zero
    if zero.optimizer_on != "none":
        return 0.0
    if zero.stage == 0:
        return FLOAT32 * setup.model.trained
    if zero.stage == 3:
        return FLOAT32 * (setup.shard + largest_group(setup))
    own = FLOAT32 * setup.shard
    if setup.recipe.optimizer.name == "adamw":
        return own
    copy = own if _keeps_views(setup) else 2.0 * FLOAT32 * min(setup.model.largest, setup.shard)
    return own + copy + zeros_of_other_tower(setup)


def standing_buffers(setup: Setup) -> float:
    """ZeRO-3 makes its reduce bucket at the start; under autocast one for either dtype."""
    if setup.zero.stage < 3 or not setup.zero.contiguous_gradients:
        return 0.0
    width = 6 if setup.zero.precision == "autocast" else setup.zero.parameter_bytes
    return float(width * setup.zero.reduce_bucket)


def bucket_buffers(setup: Setup) -> float:
    """ZeRO-1 and 2 make theirs for each backward pass, two where reduction overlaps."""
    zero = setup.zero
    if zero.stage not in (1, 2) or not zero.contiguous_gradients:
        return 0.0
    copies = (2 if zero.overlap_comm else 1) * (2 if zero.precision == "autocast" else 1)
    return float(copies * zero.parameter_bytes * zero.reduce_bucket)


def reduction_copies(setup: Setup) -> float:
    """ZeRO-3 lays the bucket out by rank before it scatters, and casts this rank's part to float32."""
    if setup.zero.stage != 3 or setup.ranks == 1:
        return 0.0
    bucket = min(max(setup.zero.reduce_bucket, setup.model.largest), setup.model.trained)
    return setup.zero.parameter_bytes * bucket + FLOAT32 * bucket / setup.ranks


def representations(setup: Setup) -> float:
    """This rank's embeddings of queries and passages, float32."""
    return FLOAT32 * setup.model.embedding_dim * sum(side.texts for side in setup.sides)


def scoring(setup: Setup) -> float:
    """Gathered passages and their gradient, this rank's query gradient, and the blocks of scores."""
    loss, D = setup.recipe.loss, setup.model.embedding_dim
    queries, passages = (side.texts for side in setup.sides)
    columns = passages * setup.ranks
    block = min(max(loss.block_scores, columns), queries * columns)
    # Scores, their probabilities by row, and, over the columns that are positives, those by column; a margin's mask.
    of_positives = (loss.passage_to_query + (loss.margin is not None)) / (1 + setup.recipe.data.hard_negatives)
    whole = FLOAT32 * D * columns * (2 if setup.ranks > 1 else 1)
    return whole + FLOAT32 * D * queries + (2 + of_positives) * FLOAT32 * block


def host_bytes(setup: Setup) -> float:
    """Per GPU, in main memory: what is offloaded there (masters, moments, gradients twice; parameters)."""
    zero, total = setup.zero, 0.0
    if zero.optimizer_on == "cpu":
        copies = 2 if zero.stage == 3 else 1
        total += optimizer_state(setup) + copies * FLOAT32 * setup.shard
        if zero.stage < 3:
            total += zero.parameter_bytes * setup.shard
    if zero.parameters_on == "cpu":
        total += zero.parameter_bytes * setup.model.parameters / setup.ranks
    return total


def saving_bytes(setup: Setup, gpus_per_node: int) -> float:
    """Of a node, in main memory: the copy that a checkpoint is written from while the run goes on.

    Masters and AdamW's moments; Adafactor's vectors and frozen parameters, on the first node alone, are left out.
    """
    if not setup.recipe.run.save_async:
        return 0.0
    kinds = 3 if setup.recipe.optimizer.name == "adamw" else 1
    held = setup.model.trained if setup.zero.stage == 0 else setup.shard * gpus_per_node
    return FLOAT32 * kinds * held
