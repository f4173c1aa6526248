"""The training loop: next batch, step, optimizer, log, save."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from largede.config.recipe import Recipe
from largede.durations import duration
from largede.errors import CheckpointError, LargedeError, TrainingError
from largede.files import writing
from largede.runs.files import stop_reason
from largede.training.adafactor import update_by_kind
from largede.training.agreement import (
    refuse_disagreement,
    refuse_other_run,
    refuse_run_of_others,
)
from largede.training.checkpoints.background import CheckpointSaver
from largede.training.checkpoints.load import load_checkpoint
from largede.training.checkpoints.retention import FOLDER_PATTERN, clear_leftovers
from largede.training.checkpoints.state import StreamPlace, sound_checkpoints, sound_state
from largede.training.collectives import all_or_none, on_rank_0, rank, world_size
from largede.training.construct import build_filled_engine
from largede.training.dry_run import dry_run, naming_the_plan
from largede.training.engine import group_timeout, join_ranks, leave_ranks
from largede.training.feed import Feed
from largede.training.gradcache import GradCacheStep, StepReport
from largede.training.guard import CollapseGuard, SpikeGuard
from largede.training.liveness.activity import LOADING, activity, phase
from largede.training.liveness.lag import Lag
from largede.training.liveness.watchdog import RankLost, end_watch, start_watch, until_watch_ends
from largede.training.monitor import Monitor
from largede.training.optimizers import client_optimizer, set_learning_rate
from largede.training.run_folder import open_run_folder
from largede.training.run_life import EXIT_SAVED_ON_SIGNAL, RunLife, folder_lost
from largede.training.schedule import learning_rate
from largede.training.spread import spread_over_ranks
from largede.training.stopping import Stop, StopRequest, leave_at_once_on_signal


def train(recipe: Recipe, say: Callable[[str], None] = print, *, allow_pipe: bool = False) -> Path:
    """Train to `recipe.run.steps`, continuing the run folder where it stands; gives the last checkpoint.

    Started on every rank alike, by the deepspeed launcher, or alone. Collective from beginning to end. `allow_pipe`
    lets data.shards be shell commands.

    Raises:
        LargedeError: the recipe, data or checkpoint cannot be used, or the loss stopped being finite.
        SystemExit: status 75 after a signal, when the run has been saved; 76 when another rank was lost; 0 when it was
            asked to stop earlier.
    """
    leave_at_once_on_signal()
    join_ranks(recipe.engine, group_timeout(recipe.guard))
    try:
        speak = say if rank() == 0 else lambda line: None
        with RunLife(Path(recipe.run.out), recipe.run.steps, speak) as life, until_watch_ends():
            last = Trainer(recipe, speak, allow_pipe=allow_pipe, life=life).run()
    except RankLost:
        raise  # the group is broken; ending it could wait for ever
    except BaseException as error:
        leave_ranks(all_ranks_leave=isinstance(error, SystemExit))
        raise
    leave_ranks(all_ranks_leave=True)
    return last


class Trainer:
    """One run on this rank: its model, its data, its place."""

    def __init__(
        self, recipe: Recipe, say: Callable[[str], None], *, allow_pipe: bool = False, life: RunLife | None = None
    ) -> None:
        """`life`, which has been entered, holds the run folder; without one nobody keeps another run out of it."""
        self.recipe = recipe
        self.say = say
        self.folder = Path(recipe.run.out)
        self.life = life or RunLife(self.folder, recipe.run.steps, say)
        self.checkpoints = self.folder / "checkpoints"
        self.feed = Feed(recipe, allow_pipe=allow_pipe)
        refuse_disagreement(recipe, self.feed.fingerprint, self.feed.tokenizer_fingerprint)
        all_or_none(self.folder_that_can_be_written)
        all_or_none(end_watch)  # on every rank, before one makes the folders that an ending watch removes
        all_or_none(lambda: start_watch(self.folder, recipe.guard, rank(), world_size()))
        self.engine = naming_the_plan(recipe, "the engine", lambda: build_filled_engine(recipe))
        self.optimizer = client_optimizer(self.engine)
        self.step = GradCacheStep(self.engine, recipe)
        self.feed.chunking = self.step.chunking
        self.skipped_batches = 0
        self.rewinds = 0
        self.say("\n".join([self.introduction(), *self.feed.batches.uneven_lanes]))
        if recipe.run.dry_run:
            self.say(dry_run(self.engine, recipe))
        self.steps_done = self.resume()
        open_run_folder(self.folder, recipe, self.feed.tokenizer, self.steps_done, self.feed.fingerprint)
        self.monitor = Monitor(
            self.folder,
            recipe.run.steps,
            recipe.run.log_every,
            self.say,
            self.steps_done,
            lag=Lag(recipe.guard.lag_factor),
            goes_on_when_full=recipe.run.when_disk_full == "go_on",
        )
        self.saver = CheckpointSaver(self.engine, recipe, self.checkpoints, self.say, self.monitor.remark)
        self.spikes = SpikeGuard(recipe.guard)
        self.collapses = CollapseGuard(
            recipe.guard, from_step=recipe.optimizer.warmup_steps + recipe.guard.spike_window
        )

    def folder_that_can_be_written(self) -> None:
        """Fail in the first seconds rather than when a model is made, or at the first checkpoint."""
        refuse_run_of_others(self.checkpoints, self.recipe, self.feed.fingerprint, self.feed.tokenizer_fingerprint)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        with writing(self.checkpoints / f"probe-{rank()}") as file:
            file.write(b"x")
        (self.checkpoints / f"probe-{rank()}").unlink()

    def run(self) -> Path:
        recipe = self.recipe
        self.monitor.introduce(recipe)
        started = time.perf_counter()
        self.stop = StopRequest(self.life)
        all_or_none(lambda: self.feed.open_at(self.place))
        self.life.begin(self.steps_done)
        activity.begin_run(self.steps_done)
        try:
            stop = self.take_steps()
        except LargedeError:
            self.saver.finish()  # all ranks raise it together, and what is on its way is worth waiting for
            raise
        if stop is Stop.FOLDER_LOST:
            raise folder_lost(self.folder)
        self.saver.finish()
        saved = self.checkpoints / f"step-{self.steps_done:08d}"
        if stop:
            return self.leave(stop, saved)
        took = duration(time.perf_counter() - started)
        self.say(f"done: {recipe.run.steps} steps in {took}; {self.monitor.cut_share()}; checkpoint {saved}")
        self.close()
        return saved

    def take_steps(self) -> Stop:
        """Step after step to the last one, or until the run is to stop; gives why."""
        stop = Stop.NO
        while self.steps_done < self.recipe.run.steps and not stop:
            self.feed.refresh(self.place, partial(self.monitor.remark, self.steps_done))
            report = self.train_step()
            has_rewound = self.guard(report)
            stop = self.stop.asked()
            if stop is Stop.FOLDER_LOST:
                return stop
            self.saver.publish_when_written()
            # A rewind is saved at once, so that a restart does not meet the same spike again.
            if self.is_time_to_save() or stop or has_rewound:
                self.save(now=bool(stop) or self.steps_done == self.recipe.run.steps)
        return stop

    def close(self) -> None:
        """End the loader's processes and write out the last figures."""
        self.feed.close()
        self.monitor.close()

    @property
    def place(self) -> int:
        """Batches read: those of the steps done, and those that rewinds left out."""
        return self.steps_done + self.skipped_batches

    def train_step(self) -> StepReport:
        waiting_since = time.perf_counter()
        batch = self.feed.next_batch()
        data_wait_s = time.perf_counter() - waiting_since
        self.seed_dropout()
        rate = learning_rate(self.recipe.optimizer, self.steps_done, self.recipe.run.steps)
        set_learning_rate(self.optimizer, rate)

        report = self.step(batch)
        gradient_norm = self.step_optimizer()
        self.steps_done += 1
        self.life.step = self.steps_done
        activity.end_step(self.steps_done)

        self.monitor.count(batch, data_wait_s)
        if self.monitor.is_due(self.steps_done):
            self.log(report, gradient_norm, rate)
        return report

    def log(self, report: StepReport, gradient_norm: float, rate: float) -> None:
        """Write the figures of the steps since the last log; look for a collapse, which only they show. Collective."""
        spread = {"queries": spread_over_ranks(report.query_BD), "passages": spread_over_ranks(report.positive_BD)}
        updates = update_by_kind(getattr(self.optimizer, "relative_update", {}))
        self.monitor.damaged_blocks = self.feed.damaged_blocks
        passes = self.feed.passes_at(self.place)
        self.monitor.log(self.steps_done, report, spread, updates, gradient_norm, rate, passes)
        collapse = self.collapses.sees_collapse(self.steps_done, spread)
        if collapse and self.recipe.guard.on_collapse == "stop":
            raise TrainingError(
                f"the embeddings have collapsed by step {self.steps_done}: {collapse}",
                expected="texts that differ to have embeddings that differ",
                mend="continue an earlier checkpoint with a lower learning rate or a higher temperature",
            )
        if collapse:
            self.monitor.remark(self.steps_done, f"warning: the embeddings are collapsing: {collapse}")

    def guard(self, report: StepReport) -> bool:
        """Act on a loss that jumped and stayed up; true after a rewind. All ranks see the same loss and do the same."""
        spike = self.spikes.sees_spike(report.score.loss)
        if spike is None:
            return False
        guard = self.recipe.guard
        if guard.on_spike == "stop" or (guard.on_spike == "rewind" and self.rewinds >= guard.most_rewinds):
            raise TrainingError(
                f"step {self.steps_done}: {spike}" + (f", after {self.rewinds} rewinds" if self.rewinds else ""),
                expected="a loss that does not jump",
                mend="continue an earlier checkpoint with a lower learning rate, or set guard.on_spike",
            )
        self.monitor.remark(self.steps_done, f"warning: {spike}")
        return guard.on_spike == "rewind" and self.rewind()

    @phase(LOADING)
    def rewind(self) -> bool:
        """Go back to the newest sound checkpoint from before the spike; leave out the batches since. Collective."""
        before_spike = self.steps_done - self.recipe.guard.spike_patience
        self.saver.finish()
        for path, state in sound_checkpoints(self.checkpoints, upto_step=before_spike):
            load_checkpoint(self.engine, path, state)
            self.saver.discard_after(path)  # not sooner: what was written amid the spike is better than nothing
            left_out = self.steps_done - state.step
            self.skipped_batches += left_out
            self.steps_done = state.step
            self.rewinds += 1
            self.feed.open_at(self.place)
            self.spikes.begin()
            self.monitor.rewind(state.step, f"back to {path.name}; the {left_out} batches since are left out")
            return True
        self.monitor.remark(self.steps_done, "there is no checkpoint from before it to go back to: going on")
        return False

    def seed_dropout(self) -> None:
        """Dropout is a function of (seed, step, rank), so a continued run needs no random state from the past."""
        if self.step.has_dropout:
            torch.manual_seed((self.recipe.run.seed * 1_000_003 + self.steps_done) * 65_537 + rank())

    def step_optimizer(self) -> float:
        """Step; gives the gradient's norm before clipping, the same on all ranks; one not finite ends all of them."""
        norm = norm_without_zero(self.engine)  # now, because stepping clears the gradients
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm() or norm)
        if not math.isfinite(norm):
            raise TrainingError(
                f"the gradient norm of step {self.steps_done} is {norm}",
                expected="a finite gradient",
                mend="continue from the last checkpoint with a lower learning rate, or bf16 instead of fp16",
            )
        return norm

    def is_time_to_save(self) -> bool:
        return self.steps_done % self.recipe.run.checkpoint_every == 0 or self.steps_done == self.recipe.run.steps

    def save(self, *, now: bool) -> None:
        prints = self.feed.fingerprint, self.feed.tokenizer_fingerprint
        place = StreamPlace(*prints, self.skipped_batches, self.rewinds, self.feed.refreshed.decisions.to_dict())
        self.saver.save(self.steps_done, place, now=now)

    def leave(self, stop: Stop, saved: Path) -> Path:
        """The run is saved: end it with status 0 if it was asked to stop, and with 75 after a signal."""
        self.close()
        if stop is Stop.ASKED:
            why = stop_reason(self.folder)
            self.life.stop(why)
            self.say(f"stopped after step {self.steps_done}: {why}; saved as {saved}")
            return saved
        self.say(f"stopped by a signal after step {self.steps_done}; saved; start the same command to continue")
        raise SystemExit(EXIT_SAVED_ON_SIGNAL)

    @phase(LOADING)
    def resume(self) -> int:
        """Continue from the newest sound checkpoint of this run, or start from another run's weights, or afresh."""
        on_rank_0(lambda: clear_leftovers(self.checkpoints))
        for path, state in sound_checkpoints(self.checkpoints):
            refuse_other_run(self.recipe, self.feed.fingerprint, self.feed.tokenizer_fingerprint, path, state)
            load_checkpoint(self.engine, path, state)
            self.feed.refreshed.go_on_from(state.negatives, path)
            self.say(f"continuing from {path}")
            self.skipped_batches, self.rewinds = state.skipped_batches, state.rewinds
            return state.step
        on_rank_0(self.nothing_to_lose)
        if self.recipe.run.start_from:
            path = Path(self.recipe.run.start_from)
            load_checkpoint(self.engine, path, sound_state(path), weights_only=True)
            self.say(f"starting from the weights of {path}")
        return 0

    def nothing_to_lose(self) -> None:
        """Refuse to begin anew over checkpoints that are all damaged: a job that is started again would never tell."""
        found = sorted(path.name for path in self.checkpoints.glob(FOLDER_PATTERN))
        if found:
            raise CheckpointError(
                f"no checkpoint in {self.checkpoints} can be used: {', '.join(found)}, as told above",
                expected="one that is whole, or none",
                mend="bring one back from a copy, or move them away to begin the run anew",
            )

    def introduction(self) -> str:
        parameters = sum(getattr(p, "ds_numel", p.numel()) for p in self.engine.module.parameters())
        return (
            f"training {self.recipe.model.backbone} ({parameters / 1e6:.1f} M parameters, {self.recipe.model.layout}) "
            f"on {world_size()} rank(s), ZeRO-{self.engine.zero_optimization_stage()}, "
            f"batch {self.recipe.batch.queries} of {self.feed.words()}, run folder {self.folder}"
        )


def norm_without_zero(engine: Any) -> float:
    """The norm of whole gradients, which DeepSpeed does not take at ZeRO-0; 0.0 at other stages."""
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if engine.zero_optimization_stage() == 0 else 0.0
