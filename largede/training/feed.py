"""What a run reads: this rank's rows of every batch, from any place on."""

import os
from collections.abc import Callable
from pathlib import Path

from largede.config.recipe import Recipe
from largede.errors import RecipeError
from largede.models.build import load_tokenizer
from largede.models.presets import PRESETS
from largede.streams.batches import PairBatches
from largede.streams.chunks import Chunking
from largede.streams.sources import Mixing, Source, open_sources
from largede.streams.tokenise import PairTokeniser, RankBatch
from largede.training.agreement import fingerprint_of_tokenizer, tokenizer_of
from largede.training.collectives import all_or_none, rank, world_size
from largede.training.liveness.activity import READING, activity, phase
from largede.training.refreshed import Refreshed


class Feed:
    """Tokenizer and data of a recipe, opened on all ranks or on none. Collective.

    A place is a number of batches from the beginning: steps done, and batches that rewinds left out. `chunking` is set
    when the step is known; until then batches are not planned into chunks.

    Raises:
        LargedeError: data or tokenizer cannot be read on a rank.
    """

    def __init__(self, recipe: Recipe, *, allow_pipe: bool) -> None:
        self.recipe = recipe
        self.allow_pipe = allow_pipe
        self.chunking: Chunking | None = None
        self.tokenizer_name = tokenizer_of(recipe.model)
        shape = PRESETS.get(recipe.model.backbone)
        vocabulary = shape.vocabulary if shape else None
        self.tokenizer = all_or_none(lambda: load_tokenizer(self.tokenizer_name, vocabulary=vocabulary))
        self.tokenizer_fingerprint = fingerprint_of_tokenizer(self.tokenizer)
        self.sources = all_or_none(self._open_sources)
        self.refreshed = Refreshed(Path(recipe.run.out), recipe.data.refresh_steps, self.sources)
        all_or_none(lambda: self.open_at(0))
        self.fingerprint = self.batches.fingerprint
        """Of the data, the same wherever it lies and whichever negatives it has."""

    def open_at(self, place: int) -> None:
        """Read on from `place`."""
        self.batches = self._batches_from(place)
        self.stream = iter(self.batches)

    def refresh(self, place: int, say: Callable[[str], None]) -> None:
        """Take refreshed hard negatives from `place` on, if it is time and there are any. Collective."""
        if self.refreshed.decide(place, say):
            self.close()  # it has prepared batches ahead
            all_or_none(lambda: self.open_at(place))

    def next_batch(self) -> RankBatch:
        """This rank's rows of the next batch. When one rank cannot read its data, all ranks stop. Collective."""
        batch = all_or_none(self.own_batch)
        activity.take(batch.step, batch.sample_names)
        return batch

    def own_batch(self) -> RankBatch:
        with phase(READING):
            return next(self.stream)

    def close(self) -> None:
        """End the loader's processes."""
        self.stream.close()

    def passes_at(self, place: int) -> dict[str, float]:
        """Passes over all data, under "", and over each source."""
        return {"": self.batches.epoch_of(place), **self.batches.epochs_of_sources(place)}

    @property
    def damaged_blocks(self) -> int:
        """Skipped by this rank since the run was started."""
        return sum(self.batches.skipped.values())

    def words(self) -> str:
        """How many pairs, and of a mixture how many of each source."""
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.batches.shares.items())
        return f"{self.batches.samples:,} pairs" + (f" (rows: {shares})" if shares else "")

    def _open_sources(self) -> list[Source]:
        data = self.recipe.data
        if not (data.shards or data.sources):
            raise RecipeError(
                "data.shards is empty",
                expected="the folder or URL of the pairs, or data.sources",
                mend="give --data.shards, from `largede-data shard`",
            )
        return open_sources(data, allow_pipe=self.allow_pipe, rank=rank(), world_size=world_size())

    def _batches_from(self, place: int) -> PairBatches[RankBatch]:
        data = self.recipe.data
        if data.workers:
            # The loader's processes are the parallelism; a forked tokenizer with own threads would warn and stop.
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
        return PairBatches(
            self.refreshed.sources_at(place),
            mixing=Mixing.of(data),
            batch_size=self.recipe.batch.queries,
            lanes=data.lanes,
            seed=data.seed,
            rank=rank(),
            world_size=world_size(),
            start_step=place,
            workers=data.workers,
            transform=PairTokeniser(self.tokenizer_name, data, self.chunking),
            damaged_limit=data.damaged_blocks,
        )
