"""`largede mine --follow RUN`: hard negatives anew from each new checkpoint of a run, beside it.

The negatives a model finds hard change while it trains (Xiong et al. 2021, ANCE). This process takes the newest
checkpoint, encodes the run's own positives with it, mines, and leaves a generation of the run's shards in its folder;
the run takes it when its recipe says (`data.refresh_steps`, `largede.training.refreshed`).

Nothing is asked of the run: it may stop and go on meanwhile, on as many ranks as it likes. Killed at any point, this
process leaves no generation that is half written; started again it goes on, with the shards of embeddings and the
windows of lists that are there.
"""

import argparse
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from largede.config.load import load_recipe
from largede.config.recipe import Recipe
from largede.durations import duration
from largede.errors import CheckpointError, DataError, MachineError, RecipeError
from largede.files import read_json_object, remove_folder
from largede.refresh.generation import write_generation
from largede.retrieval.encoder import Model, open_model
from largede.retrieval.mine.settings import MineSettings
from largede.retrieval.mine.sources import ShardPairs
from largede.retrieval.mine.stages import STAGES, MineJob, Mining
from largede.runs.claims import Claim
from largede.runs.evaluated import fingerprint_of_checkpoint
from largede.runs.files import CHECKPOINTS, life_of, read_run_state
from largede.runs.negatives import (
    FOLLOWER,
    GENERATION,
    GENERATIONS,
    generation_names,
    names_to_remove,
    next_name,
    read_decisions,
)
from largede.streams.index import ShardIndex
from largede.streams.places import place_of
from largede.training.checkpoints.retention import FOLDER_PATTERN, reading
from largede.training.checkpoints.state import read_state
from largede.training.export import export_checkpoint, newest_of

Say = Callable[[str], None]
Opened = Callable[[Path], Model]
"""A model folder as a model."""


@dataclass(frozen=True)
class FollowSettings:
    """Which run, and how to mine. `shards` is where its shards lie now; empty: where its recipe says."""

    run: Path
    settings: MineSettings
    shards: str = ""
    once: bool = False
    every_s: float = 30.0
    nice: int = 0
    device: str | None = None
    compute_dtype: str = "float32"

    @classmethod
    def from_flags(cls, args: argparse.Namespace, settings: MineSettings) -> "FollowSettings":
        """Limits of tokens that no flag gives are those of the run's recipe. Raises DataError for flags in the way."""
        for flag in ("model", "out", "corpus", "embeddings"):
            if getattr(args, flag) is not None:
                raise DataError(
                    f"--{flag} with --follow",
                    expected="the run's own model, passages and folder",
                    mend=f"leave --{flag} out",
                )
        if args.data and len(args.data) > 1:
            raise DataError("--data with several folders", expected="the run's shards", mend="name that folder alone")
        data = recipe_of_run(args.follow).data
        settings = replace(
            settings,
            max_query_tokens=args.max_query_tokens or data.max_query_tokens,
            max_passage_tokens=args.max_passage_tokens or data.max_passage_tokens,
        )
        shards = str(args.data[0]) if args.data else ""
        return cls(args.follow, settings, shards, args.once, args.every, args.nice, args.device, args.compute_dtype)


def follow(settings: FollowSettings, say: Say = print, open_with: Opened | None = None) -> None:
    """Mine from every new checkpoint until the run has finished; with `once`, from the newest one.

    Raises:
        DataError: no run there, or its shards cannot be read.
        RecipeError: the run would never take refreshed negatives.
        MachineError: another process follows the run already.
    """
    recipe = recipe_of_run(settings.run)
    base = ShardIndex.load(place_of(settings.shards or recipe.data.shards))
    folder = settings.run / GENERATIONS
    claim = Claim(folder / FOLLOWER, say=say)
    holder = claim.take()
    if holder is not None:
        raise MachineError(
            f"{settings.run} is followed by {holder.words()}", expected="one process", mend="stop that one first"
        )
    try:
        os.nice(settings.nice)
        for left in folder.glob(".gen-*.partial"):
            shutil.rmtree(left, ignore_errors=True)
        Follower(settings, base, claim, say, open_with or settings_model(settings)).follow()
    finally:
        claim.release()


def settings_model(settings: FollowSettings) -> Opened:
    return lambda path: open_model(path, device=settings.device, dtype=settings.compute_dtype)


class Follower:
    """One process at work beside a run."""

    def __init__(self, settings: FollowSettings, base: ShardIndex, claim: Claim, say: Say, open_with: Opened) -> None:
        self.settings = settings
        self.claim = claim
        self.run = settings.run
        self.folder = settings.run / GENERATIONS
        self.base = base
        self.say = say
        self.open_with = open_with
        self.passed_over = ""

    def follow(self) -> None:
        self.say(f"following {self.run}: {self.base.samples:,} pairs, {len(generation_names(self.run))} generations")
        while True:
            has_finished = life_of(self.run, read_run_state(self.run)) == "finished"
            if not has_finished and self.is_new(newest := newest_of(self.run / CHECKPOINTS)):
                self.refresh(newest)
            elif self.settings.once:
                self.say("there is no checkpoint that was not mined from already")
            if has_finished or self.settings.once:
                return
            time.sleep(self.settings.every_s)

    def is_new(self, checkpoint: str) -> bool:
        """Whether the newest generation is of another checkpoint."""
        if not checkpoint or checkpoint == self.passed_over:
            return False
        names = generation_names(self.run)
        facts = read_json_object(self.folder / names[-1] / GENERATION) if names else {}
        try:
            return facts.get("state") != fingerprint_of_checkpoint(self.run / CHECKPOINTS / checkpoint)
        except CheckpointError:
            return False  # removed since we looked

    def refresh(self, checkpoint: str) -> None:
        """Mine from one checkpoint and write a generation; one that is damaged or gone is passed over."""
        begun = time.monotonic()
        try:
            state = self.export(checkpoint)
        except CheckpointError as error:
            self.say(f"{checkpoint} is passed over: {error.given}")
            self.passed_over = checkpoint
            return
        mining = self.mine()
        if self.claim.lost:
            raise MachineError(
                f"{self.claim.path} is another process's by now",
                expected="one process that follows the run",
                mend="leave it to the other, or stop that one and start this again",
            )
        name = next_name(self.run)
        facts = {"checkpoint": checkpoint, "state": state, "summary": mining.summary()}
        write_generation(self.base, mining.chosen_pairs(), self.folder / name, facts)
        took = duration(time.monotonic() - begun)
        self.say(f"{name} of {checkpoint}: {words_of_tally(mining)} ({took})")
        self.remove_unneeded()

    def export(self, checkpoint: str) -> str:
        """The checkpoint as a model folder, and the fingerprint of its state. The run does not remove it meanwhile."""
        path = self.run / CHECKPOINTS / checkpoint
        with reading(path):
            state = fingerprint_of_checkpoint(path)
            export_checkpoint(path, self.folder / "work" / "model", again=True, say=self.say)
        return state

    def mine(self) -> Mining:
        model = self.open_with(self.folder / "work" / "model")
        job = MineJob(ShardPairs(self.base), model, self.folder, self.settings.settings)
        mining = Mining(job)
        for name, stage in STAGES:
            if name != "publish":
                self.say(f"  {name:<8} {stage(mining)}")
        return mining

    def remove_unneeded(self) -> None:
        names = generation_names(self.run)
        for name in names_to_remove(names, read_decisions(self.run), oldest_batch(self.run / CHECKPOINTS)):
            remove_folder(self.folder / name)
            self.say(f"{name} removed: no checkpoint that is left goes on with it")


def recipe_of_run(run: Path) -> Recipe:
    """The recipe a run is at work with. Raises DataError for no run, RecipeError for one that takes no refresh."""
    path = run / "recipe.yaml"
    if not path.is_file():
        raise DataError(f"{run} is no run folder", expected="the --run.out of a training", mend="check --follow")
    recipe = load_recipe(path)
    if recipe.data.refresh_steps is None:
        raise RecipeError(
            f"data.refresh_steps of {run} is empty",
            expected="a run that looks for refreshed negatives",
            mend="stop the run and give its command again with --data.refresh_steps 1000 (and data.hard_negatives)",
        )
    return recipe


def words_of_tally(mining: Mining) -> str:
    summary = mining.summary()
    return f"{summary['negatives']:,} negatives for {summary['pairs']:,} pairs"


def oldest_batch(checkpoints: Path) -> int | None:
    """The first batch that the oldest checkpoint would go on with; None when there is none, or one cannot be read."""
    try:
        states = [read_state(path) for path in checkpoints.glob(FOLDER_PATTERN)]
    except CheckpointError:
        return None
    return min((state.step + state.skipped_batches for state in states), default=None)
