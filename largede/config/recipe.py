"""The recipe: everything a run depends on, in one frozen tree.

Each group belongs to one part of largede. Each field has a type, a default and a sentence with its unit; a value is
checked once, when the tree is built. `largede.config.load` turns YAML and dotted flags into a `Recipe` and back.
DeepSpeed's own settings stay in `ds_configs/*.json`; nothing there is repeated here and nothing here there.
"""

import re
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal

from largede.errors import RecipeError

Layout = Literal["sde", "ade", "ade-ste", "ade-fte", "ade-spl"]
Similarity = Literal["cosine", "dot"]
Attention = Literal["auto", "packed", "padded"]
Batches = Literal["mixed", "single_source"]


def setting(default: Any, sentence: str) -> Any:
    """A field with the sentence that `largede train --help-recipe` prints for it."""
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata={"help": sentence})
    return field(default=default, metadata={"help": sentence})


def demand(condition: bool, given: str, expected: str, mend: str) -> None:
    """Refuse an impossible value with the three parts that every largede error has."""
    if not condition:
        raise RecipeError(given, expected=expected, mend=mend)


def demand_positive(group: Any, *names: str) -> None:
    for name in names:
        value = getattr(group, name)
        if value is not None and value <= 0:
            raise RecipeError(
                f"{type(group).__name__.removesuffix('Config').lower()}.{name} is {value}",
                expected="a number above zero",
                mend=f"set {name} to a positive value",
            )


def demand_folders(group: Any, *names: str) -> None:
    """Refuse addresses (s3://…) where only a path of this machine or a hub's name can be read."""
    for name in names:
        value = getattr(group, name)
        demand(
            value is None or "://" not in value,
            f"{type(group).__name__.removesuffix('Config').lower()}.{name} is {value}",
            "a path of this machine, not an address",
            f"mount the storage and give its path{', or copy it here first' if name != 'out' else ''}",
        )


@dataclass(frozen=True)
class ModelConfig:
    """The dual encoder: which T5 stack, how two towers share it, and what one embedding is."""

    backbone: str = setting("gtr-base", "A preset shape (built from scratch) or a local folder or hub name (weights).")
    layers: int | None = setting(None, "Keep the first so many layers of the backbone only; empty: all.")
    tokenizer: str | None = setting(None, "Folder or hub name of the tokenizer; empty: the backbone's own.")
    layout: Layout = setting("sde", "Sharing between towers: sde, ade, ade-ste, ade-fte or ade-spl.")
    similarity: Similarity = setting("cosine", "cosine: embeddings have length 1; dot: they are left as projected.")
    embedding_dim: int = setting(768, "Width of one embedding, in numbers.")
    dropout: float = setting(0.0, "Probability of T5's dropout, 0 to below 1.")
    seed: int = setting(0, "Seed of freshly initialised weights.")

    def __post_init__(self) -> None:
        demand_positive(self, "embedding_dim", "layers")
        demand_folders(self, "backbone", "tokenizer")
        demand(
            0.0 <= self.dropout < 1.0,
            f"model.dropout is {self.dropout}",
            "a probability from 0 to below 1",
            "GTR uses 0.0 for pre-training and 0.1 for fine-tuning",
        )


@dataclass(frozen=True)
class SourceConfig:
    """One source of a mixture; what is empty is as in `data`."""

    shards: str = setting("", "Folder, URL or command, as data.shards.")
    weight: float | None = setting(
        None, "Its part of all rows, beside the others' weights; all sources have one or none; empty: by its size."
    )
    max_query_tokens: int | None = setting(None, "As data.max_query_tokens, for its pairs.")
    max_passage_tokens: int | None = setting(None, "As data.max_passage_tokens, for its pairs.")
    query_prefix: str | None = setting(None, "As data.query_prefix, for its pairs.")
    passage_prefix: str | None = setting(None, "As data.passage_prefix, for its pairs.")


@dataclass(frozen=True)
class TextForm:
    """How the texts of a source become tokens: prefixes, and limits in tokens."""

    max_query_tokens: int
    max_passage_tokens: int
    query_prefix: str
    passage_prefix: str

    def of_side(self, side: Literal["query", "passage"]) -> tuple[str, int]:
        """The prefix and the limit of queries, or of passages."""
        if side == "query":
            return self.query_prefix, self.max_query_tokens
        return self.passage_prefix, self.max_passage_tokens


_FORM = tuple(item.name for item in fields(TextForm))


@dataclass(frozen=True)
class DataConfig:
    """Where pairs come from and how their text becomes tokens."""

    shards: str = setting(
        "",
        "Folder written by `largede-data shard`, or the URL of one (https, s3, gs, any that fsspec reads), or "
        "pipe:COMMAND with {name} (train --allow-pipe).",
    )
    sources: dict[str, SourceConfig] = setting(
        {},
        "In place of data.shards, several sources by name: {reddit: {shards: a, weight: 3}, marco: {shards: b, "
        "weight: 1}}; on the command line also --data.sources.reddit.weight 3.",
    )
    mixing_temperature: float = setting(
        1.0, "T: sources without weights give rows by size ** (1 / T); 1: by size, the larger the more evenly."
    )
    batches: Batches = setting("mixed", "mixed: every batch has rows of all sources; single_source: rows of one.")
    mixing_period: int = setting(1000, "Batches after which the seeded table of the mixture repeats.")
    seed: int = setting(0, "Seed of the global order of pairs.")
    lanes: int = setting(8, "Independent readers of the data; divides batch.queries, fixed for the life of a run.")
    workers: int = setting(0, "Loader processes per rank; 0 reads and tokenises in the training process.")
    hard_negatives: int = setting(0, "Hard negatives used per query, at most; a pair with fewer gives what it has.")
    refresh_steps: int | None = setting(
        None,
        "Steps after which the run looks for negatives that `largede mine --follow RUN` mined anew, and goes on with "
        "the newest; what it took when is kept with the run, so it can be continued and repeated; empty: never.",
    )
    max_query_tokens: int = setting(64, "Longest query, in tokens; longer ones are cut and counted.")
    max_passage_tokens: int = setting(512, "Longest passage, in tokens; longer ones are cut and counted.")
    tokenizer_backend: Literal["auto", "transformers"] = setting(
        "auto",
        "auto: T5's tokenizer runs on SentencePiece itself, several times faster (it may cut a word in another way of "
        "equal score); transformers: as transformers does it.",
    )
    query_prefix: str = setting("", "Text put before every query.")
    passage_prefix: str = setting("", "Text put before every passage.")
    damaged_blocks: int = setting(
        0,
        "Damaged blocks of a source that may be skipped before the run stops, all shards together; counted anew when "
        "the run is started again.",
    )

    def __post_init__(self) -> None:
        demand_positive(self, "lanes", "max_query_tokens", "max_passage_tokens", "mixing_temperature", "mixing_period")
        demand_positive(self, "refresh_steps")
        for name in ("workers", "hard_negatives", "damaged_blocks"):
            value = getattr(self, name)
            demand(value >= 0, f"data.{name} is {value}", "zero or more", f"set data.{name} to 0 or a positive number")
        self._check_sources()
        self._check_refresh()

    def _check_refresh(self) -> None:
        demand(
            self.refresh_steps is None or self.hard_negatives > 0,
            f"data.refresh_steps is {self.refresh_steps} and data.hard_negatives 0",
            "hard negatives that a refresh would change",
            "set data.hard_negatives to those of a query that a batch uses, or leave data.refresh_steps empty",
        )
        demand(
            self.refresh_steps is None or not self.sources,
            f"data.refresh_steps is {self.refresh_steps} with data.sources",
            "one set of shards, which is mined as a whole",
            "shard all pairs together and give data.shards, or leave data.refresh_steps empty",
        )

    def _check_sources(self) -> None:
        demand(
            not (self.shards and self.sources),
            f"data.shards is {self.shards!r} and data.sources has {', '.join(self.sources)}",
            "one of the two",
            "make data.shards empty, or name it among the sources",
        )
        for name, source in self.sources.items():
            demand(
                re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None,
                f"data.sources has the name {name!r}",
                "letters, digits, - and _, since it names figures and flags",
                "rename the source",
            )
            for item in ("weight", "max_query_tokens", "max_passage_tokens"):
                value = getattr(source, item)
                demand(value is None or value > 0, f"data.sources.{name}.{item} is {value}", "above zero", "raise it")
            demand(source.shards != "", f"data.sources.{name}.shards is empty", "the folder of its pairs", "give it")
        without = [name for name, source in self.sources.items() if source.weight is None]
        demand(
            len(without) in (0, len(self.sources)),
            f"data.sources has no weight for {', '.join(without)}, but one for others",
            "weights for all sources, or for none (then data.mixing_temperature decides)",
            f"give data.sources.{without[0] if without else 'NAME'}.weight, or leave all weights out",
        )

    @property
    def text_forms(self) -> dict[str, TextForm]:
        """By source in the order of their names; one under "" when there is no mixture."""
        forms = {name: self.sources[name] for name in sorted(self.sources)} or {"": SourceConfig()}
        return {name: TextForm(**{n: self._own_or_common(source, n) for n in _FORM}) for name, source in forms.items()}

    def _own_or_common(self, source: SourceConfig, name: str) -> Any:
        own = getattr(source, name)
        return getattr(self, name) if own is None else own

    @property
    def longest_query_tokens(self) -> int:
        """The largest limit of any source."""
        return max(form.max_query_tokens for form in self.text_forms.values())

    @property
    def longest_passage_tokens(self) -> int:
        """The largest limit of any source."""
        return max(form.max_passage_tokens for form in self.text_forms.values())


@dataclass(frozen=True)
class BatchConfig:
    """The contrastive batch and the chunks it is computed in. Ranks and DeepSpeed's numbers follow (`config.batch`)."""

    queries: int = setting(2048, "Queries in one contrastive batch, over all ranks.")
    chunk_tokens: int = setting(16384, "Tokens, padding included, in one chunk that is computed with gradients.")
    no_grad_chunk_tokens: int | None = setting(
        None, "Tokens in one chunk of the pass without gradients (only used without dropout); empty: chunk_tokens."
    )
    gradient_cache: bool = setting(
        True, "True: GradCache, memory of one chunk; false: keep the graphs of all chunks (faster while they fit)."
    )

    def __post_init__(self) -> None:
        demand_positive(self, "queries", "chunk_tokens", "no_grad_chunk_tokens")


@dataclass(frozen=True)
class LossConfig:
    """The in-batch softmax (Ni et al. 2021, equation 1) and what it leaves out."""

    temperature: float = setting(0.01, "Divides every similarity before the softmax.")
    passage_to_query: bool = setting(True, "Add the loss of finding the query of a passage.")
    mask_duplicates: bool = setting(
        True, "Leave out columns that are the row's positive again (same id or text), its query, or a known positive."
    )
    margin: float | None = setting(
        None, "Leave out columns more similar than the row's own partner by more than this; empty: keep them."
    )
    block_scores: int = setting(2**25, "Scores (rows x columns, 4 bytes each) held at a time.")

    def __post_init__(self) -> None:
        demand(
            self.temperature > 0,
            f"loss.temperature is {self.temperature}",
            "a number above zero",
            "GTR uses 0.01",
        )
        demand_positive(self, "block_scores")
        demand(
            self.margin is None or self.margin >= 0,
            f"loss.margin is {self.margin}",
            "zero or more, in units of similarity, or empty",
            "0.05 leaves out what beats the positive clearly",
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning rate. Adafactor's rate is relative to each parameter's root mean square."""

    name: Literal["adafactor", "adamw"] = setting("adafactor", "adafactor (exact over ZeRO slices) or adamw.")
    learning_rate: float = setting(1e-3, "Peak rate; for adafactor relative to each parameter's RMS.")
    warmup_steps: int = setting(1000, "Steps over which the rate rises from zero.")
    schedule: Literal["linear", "constant"] = setting(
        "linear", "After warm-up: linear decay to 0 at run.steps, or flat."
    )
    clip_norm: float | None = setting(None, "Global gradient norm above which gradients are scaled down; empty: off.")
    weight_decay: float = setting(0.0, "Decoupled weight decay (adamw only).")
    decay_exponent: float = setting(0.8, "Adafactor: second-moment decay is 1 - step ** -this.")
    update_clip: float = setting(1.0, "Adafactor: largest root mean square of one parameter's update.")
    factor_from: int = setting(128, "Adafactor: matrices whose two sides reach this are factored.")
    rate_factors: dict[str, float] = setting(
        {},
        "Factor on the rate by part of a parameter's name, the first that occurs counting: {projection: 10.0, "
        "embed_tokens: 0}; 0 freezes.",
    )

    def __post_init__(self) -> None:
        for part, factor in self.rate_factors.items():
            demand(
                part != "" and factor >= 0.0,
                f"optimizer.rate_factors has {part!r}: {factor}",
                "a part of a parameter's name, and a factor of zero or more",
                "0 freezes, 1 changes nothing",
            )
        demand_positive(self, "learning_rate", "clip_norm", "decay_exponent", "update_clip", "factor_from")
        demand(self.warmup_steps >= 0, f"optimizer.warmup_steps is {self.warmup_steps}", "zero or more", "set it to 0")
        demand(
            self.weight_decay == 0.0 or self.name == "adamw",
            f"optimizer.weight_decay is {self.weight_decay} with adafactor",
            "0, or optimizer.name adamw",
            "GTR's Adafactor has no weight decay",
        )


@dataclass(frozen=True)
class EngineConfig:
    """How DeepSpeed runs the step. ZeRO stage and precision are DeepSpeed's own and stand in its JSON file."""

    deepspeed: str = setting("zero3.json", "DeepSpeed JSON file: a path, or the name of a file in ds_configs/.")
    gradient_reduction: Literal["per_chunk", "coalesced"] = setting(
        "per_chunk",
        "per_chunk: reduce-scatter into float32 slices after each chunk; coalesced: once per step, "
        "where bf16 parameters add up their chunks in bf16.",
    )
    activation_checkpointing: bool = setting(False, "Recompute each T5 block in the backward pass.")
    parameters: Literal["regathered", "resident"] = setting(
        "regathered",
        "ZeRO-3: regathered: each chunk gathers each block again, as the DeepSpeed file says; resident: every rank "
        "keeps a whole copy between the chunks (2 bytes per parameter in bf16) and gathers once per step.",
    )
    attention: Attention = setting(
        "auto",
        "packed: sequences end to end, no padding (T5 only; attention-weight dropout is left out, the other dropouts "
        "stay; chunk_tokens, best a power of two, counts in whole tiles of 128; FlexAttention on a GPU; without one "
        "memory grows with the square of chunk_tokens: for small runs); padded: length-sorted rectangles (SDPA); "
        "auto: packed for T5 on a GPU, else padded.",
    )
    nvme_path: str | None = setting(
        None, "Folder on a local NVMe disk, for DeepSpeed files that put parameters there (zero3_bf16_nvme.json)."
    )
    cpu_threads: int | None = setting(None, "Threads per rank on a machine without GPU; empty: cores / ranks.")

    def __post_init__(self) -> None:
        demand_positive(self, "cpu_threads")
        demand_folders(self, "deepspeed", "nvme_path")


@dataclass(frozen=True)
class RunConfig:
    """One run: its folder, its length, and what it leaves behind."""

    out: str = setting("runs/run", "Folder of the run: recipe, checkpoints, TensorBoard.")
    steps: int = setting(20_000, "Optimizer steps in all.")
    seed: int = setting(0, "Seed of dropout.")
    log_every: int = setting(10, "Steps between two lines and TensorBoard points.")
    checkpoint_every: int = setting(1000, "Steps between checkpoints; the last step always saves.")
    keep_checkpoints: int = setting(2, "Newest checkpoints kept.")
    keep_every: int | None = setting(None, "Checkpoints of every so many-th step are kept for ever; empty: none.")
    keep_best: int = setting(0, "So many best checkpoints are kept as well, by what `largede watch` measured of them.")
    keep_unevaluated: int = setting(
        5,
        "So many checkpoints stay beyond those above while a `largede watch` of the run has yet to evaluate them, the "
        "newest; each needs its room on the disk.",
    )
    save_async: bool = setting(
        True, "Checkpoints are written while the run goes on, from a copy in host memory; false: the run waits."
    )
    when_disk_full: Literal["stop", "go_on"] = setting(
        "stop",
        "A checkpoint that finds no room is removed, the one before it stays, and the run: stop: ends; go_on: says so "
        "and tries again when the next one is due. The last checkpoint, and one on a signal, must find room.",
    )
    start_from: str | None = setting(
        None, "Checkpoint whose weights (not moments, not position) a new run starts from."
    )
    dry_run: bool = setting(True, "Before data is touched, take one made step of the largest shape, and undo it.")

    def __post_init__(self) -> None:
        demand_positive(self, "steps", "log_every", "checkpoint_every", "keep_checkpoints", "keep_every")
        demand_folders(self, "out", "start_from")
        demand(self.out.strip() != "", "run.out is empty", "the folder of the run", "give it: --run.out runs/first")
        demand(
            self.keep_every is None or self.keep_every % self.checkpoint_every == 0,
            f"run.keep_every is {self.keep_every}, and a checkpoint comes every {self.checkpoint_every} steps",
            "a multiple of run.checkpoint_every",
            "make it one: others would be kept by chance",
        )
        for name in ("keep_best", "keep_unevaluated"):
            count = getattr(self, name)
            demand(count >= 0, f"run.{name} is {count}", "zero or more", "set it to 0")


@dataclass(frozen=True)
class GuardConfig:
    """When a run is in trouble, and what it does then: loss spikes, collapsed embeddings, ranks that hang or lag."""

    on_spike: Literal["report", "rewind", "stop"] = setting(
        "report",
        "report: say it and go on; rewind: go back to the last checkpoint before it and leave out the batches since; "
        "stop: end the run. A loss that is no number ends the run in any case.",
    )
    spike_factor: float = setting(2.0, "A loss above this many times the median of the window counts as high.")
    spike_window: int = setting(100, "Steps whose median loss is the measure; no spike is seen before half of them.")
    spike_patience: int = setting(5, "High losses in a row that make a spike.")
    most_rewinds: int = setting(3, "Rewinds after which a further spike stops the run.")
    on_collapse: Literal["report", "stop"] = setting("report", "report: say it and go on; stop: end the run.")
    collapse_cosine: float = setting(0.95, "Mean cosine of unrelated texts above which embeddings have collapsed.")
    collapse_rank: float = setting(4.0, "Effective rank of the batch's embeddings below which they have collapsed.")
    hang_after_s: float | None = setting(
        600.0,
        "Seconds without progress on any rank after which every rank writes its stacks and one names who hangs; six "
        "times as long while the run starts, loads, saves or takes its first step. The process group gives up after "
        "twelve times as long. Empty: no watch, and the process group gives up after an hour.",
    )
    on_hang: Literal["report", "stop"] = setting(
        "stop",
        "stop: name who hangs, then end all ranks with status 76; the same command given again continues from the last "
        "checkpoint; report: name who hangs and go on waiting.",
    )
    lag_factor: float | None = setting(
        1.5, "Remark a rank whose steps take this many times the median rank's own work for long; empty: never."
    )

    def __post_init__(self) -> None:
        demand_positive(self, "spike_window", "spike_patience", "collapse_rank", "hang_after_s")
        demand(
            self.lag_factor is None or self.lag_factor > 1.0,
            f"guard.lag_factor is {self.lag_factor}",
            "a number above 1, or empty",
            "1.5 is half as long again",
        )
        demand(
            self.spike_factor > 1.0,
            f"guard.spike_factor is {self.spike_factor}",
            "a number above 1",
            "2.0 is a doubling",
        )
        demand(self.most_rewinds >= 0, f"guard.most_rewinds is {self.most_rewinds}", "zero or more", "set it to 0")
        demand(
            0.0 < self.collapse_cosine <= 1.0,
            f"guard.collapse_cosine is {self.collapse_cosine}",
            "a cosine above 0, up to 1",
            "0.95 is well above what a healthy model shows",
        )


@dataclass(frozen=True)
class Recipe:
    """The whole tree; `validate` holds the checks that concern two groups at once."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        demand(
            len(self.data.sources) > 1 or self.batch.queries % self.data.lanes == 0,
            f"batch.queries {self.batch.queries} is not a multiple of data.lanes {self.data.lanes}",
            "each lane gives the same number of rows to every batch",
            f"choose lanes among the divisors of {self.batch.queries}",
        )
        longest = max(self.data.longest_query_tokens, self.data.longest_passage_tokens)
        for name in ("chunk_tokens", "no_grad_chunk_tokens"):
            budget = getattr(self.batch, name)
            demand(
                budget is None or budget >= longest,
                f"batch.{name} {budget} holds less than one sequence of {longest} tokens",
                "at least the longest sequence",
                f"raise batch.{name} or lower max_query_tokens / max_passage_tokens of data and its sources",
            )
        demand(
            self.optimizer.warmup_steps <= self.run.steps,
            f"optimizer.warmup_steps {self.optimizer.warmup_steps} exceeds run.steps {self.run.steps}",
            "a warm-up that ends within the run",
            "lower optimizer.warmup_steps or raise run.steps",
        )


def describe_settings() -> str:
    """Every setting with its default and sentence, as `largede train --help-recipe` prints them."""
    lines: list[str] = []
    for group in fields(Recipe):
        config = getattr(Recipe(), group.name)
        lines.append(f"{group.name}: {(type(config).__doc__ or '').splitlines()[0]}")
        for item in fields(config):
            lines += _described(f"{group.name}.{item.name}", getattr(config, item.name), item)
        if group.name == "data":
            for item in fields(SourceConfig):
                lines += _described(f"data.sources.NAME.{item.name}", item.default, item)
    return "\n".join(lines)


def _described(name: str, default: Any, item: Field[Any]) -> list[str]:
    return [f"  {name} = {default!r}", f"      {item.metadata['help']}"]
