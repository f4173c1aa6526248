"""Saving while the run goes on.

The step that saves only copies this rank's tensors to host memory; a thread of each rank writes and hashes the copy.
At the end of a later step, when all ranks have written, the ranks agree on it and the checkpoint gets its name. Only
the main thread takes part in collectives. One checkpoint is in the making at a time.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from largede.config.recipe import Recipe
from largede.errors import LargedeError, NoRoomError
from largede.training.checkpoints.host_copy import HostBlock
from largede.training.checkpoints.retention import discard_after, keep_of, remove_all
from largede.training.checkpoints.state import CheckpointState, StreamPlace
from largede.training.checkpoints.tensor_file import TensorFile
from largede.training.checkpoints.write import (
    Written,
    begin_folder,
    files_of_rank,
    publish,
    remove_half_written,
    save_checkpoint,
    state_of,
    write_files,
)
from largede.training.collectives import all_or_none, any_over_ranks, group_device, rank
from largede.training.liveness.activity import SAVING, phase

WRITER_NICENESS = 10
"""The thread that writes gives way to those that train."""


@dataclass
class Flight:
    """A checkpoint that is being written: this rank's thread and what became of it."""

    state: CheckpointState
    temporary: Path
    files: list[TensorFile]
    written: Written = field(default_factory=dict)
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._write, name=f"writer of step {self.state.step}", daemon=True)

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # a courtesy that not every system allows
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), WRITER_NICENESS)
        try:
            self.written = write_files(self.temporary, self.files)
        except Exception as error:  # carried to the main thread, which raises it
            self.failure = error

    def result(self) -> Written:
        """What was written, or the failure of writing it; waits for either."""
        self.thread.join()
        if self.failure is not None:
            raise self.failure
        return self.written


class CheckpointSaver:
    """Saves the checkpoints of a run. Every method that says so is collective.

    `say` prints a line on rank 0; `warn` also notes it with the run's figures, for a step.
    """

    def __init__(
        self,
        engine: Any,
        recipe: Recipe,
        folder: Path,
        say: Callable[[str], None],
        warn: Callable[[int, str], None],
    ) -> None:
        self.engine = engine
        self.recipe = recipe
        self.folder = folder
        self.say = say
        self.warn = warn
        self.block = HostBlock()
        self.flight: Flight | None = None
        self.remover: threading.Thread | None = None

    @phase(SAVING)
    def save(self, step: int, place: StreamPlace, *, now: bool) -> None:
        """Save the run as it is after `step` steps. Collective.

        `now`: it is on disk on return, or the error is raised whatever the recipe says; else it may be on its way.

        Raises:
            LargedeError: it cannot be written, and the recipe does not say to go on.
        """
        if self.flight is not None and not now:
            self.say(f"step {step}: waiting until the checkpoint of step {self.flight.state.step} is written")
        self.finish()
        if now:
            save_checkpoint(self.engine, self.recipe, step, self.folder, place)
        elif self.recipe.run.save_async:
            self._attempt(step, lambda: self._begin(step, place))
        else:
            self._attempt(step, lambda: save_checkpoint(self.engine, self.recipe, step, self.folder, place))

    def _begin(self, step: int, place: StreamPlace) -> None:
        temporary = begin_folder(self.folder, step)
        try:
            files = all_or_none(lambda: self.block.copy_of(files_of_rank(self.engine)))
        except LargedeError:
            remove_half_written(temporary)
            raise
        self.flight = Flight(state_of(self.engine, self.recipe, step, place), temporary, files)
        self.flight.thread.start()

    def publish_when_written(self) -> None:
        """Give the checkpoint in the making its name when all ranks have written it. Collective, after every step."""
        flight = self.flight
        if flight is not None and not any_over_ranks(flight.thread.is_alive(), group_device()):
            self._publish(flight)

    @phase(SAVING)
    def finish(self) -> None:
        """Wait for the checkpoint in the making, if there is one, and for the removal of old ones. Collective."""
        if self.flight is not None:
            self._publish(self.flight)
        if self.remover is not None:
            self.remover.join()

    @phase(SAVING)
    def _publish(self, flight: Flight) -> None:
        self.flight = None

        def agree() -> None:
            try:
                written = all_or_none(flight.result)
            except LargedeError:
                remove_half_written(flight.temporary)
                raise
            self._remove(publish(flight.temporary, flight.state, keep_of(self.recipe.run), written))

        self._attempt(flight.state.step, agree)

    def discard_after(self, checkpoint: Path) -> None:
        """Take back what was saved after `checkpoint`, so that a restart continues from it. Collective."""
        self._remove(all_or_none(lambda: discard_after(checkpoint) if rank() == 0 else []))

    def _remove(self, doomed: list[Path]) -> None:
        """Remove old checkpoints beside the run: gigabytes may take longer than the other ranks should wait."""
        if rank() == 0:
            if self.remover is not None:
                self.remover.join()
            self.remover = threading.Thread(target=remove_all, args=(doomed,), daemon=True)
            self.remover.start()

    def _attempt(self, step: int, work: Callable[[], Any]) -> None:
        """Do `work`, which fails on all ranks or on none; a full disk is survived where the recipe says so."""
        try:
            work()
        except LargedeError as error:
            is_full = not any_over_ranks(not isinstance(error, NoRoomError), group_device())
            if not (is_full and self.recipe.run.when_disk_full == "go_on"):
                raise
            self.warn(step, f"warning: the checkpoint of step {step} is not saved: {error.given}; going on without it")
