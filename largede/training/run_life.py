"""A run has its folder to itself, and says in state.json what it is doing and how it ended."""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from largede.errors import DataError, LargedeError, NoRoomError, TrainingError
from largede.runs.claims import SILENT_S, Claim, Holder, silence_s
from largede.runs.files import LOCK, STOP, RunState, read_run_state, stop_reason, write_run_state
from largede.runs.redact import hide_in_error
from largede.training.collectives import all_or_none, any_over_ranks, group_device, rank
from largede.training.liveness.watchdog import RankLost

LOOK_EVERY_S = 1.0

EXIT_SAVED_ON_SIGNAL = 75
"""Exit status after SIGTERM or SIGUSR1: the run is saved and wants to be started again (EX_TEMPFAIL)."""


class RunLife:
    """The folder is ours from before anything is read from it until the run has left it. Rank 0 holds and writes.

    Entering is collective. Raises:
        TrainingError: another run is at work in the folder.
        SystemExit: status 0, when the run was asked to stop and stop.json is still there.
    """

    def __init__(self, folder: Path, steps: int, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.steps = steps
        self.say = say
        self.step = 0
        self._state: RunState | None = None
        self._writing = threading.RLock()  # the main thread changes the state, and the claim's thread renews it
        self._claim = Claim(folder / LOCK, beat=self._write, say=say)

    def __enter__(self) -> "RunLife":
        all_or_none(self._take_folder)
        reason = stop_reason(self.folder) if rank() == 0 else ""
        if any_over_ranks(bool(reason), group_device()):
            self.say(
                f"the run in {self.folder} was stopped: {reason}\n"
                f"to go on anyway, remove {self.folder / STOP} and start it again"
            )
            self._claim.release()
            raise SystemExit(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._state is None or self._state.state == "running":
                self._conclude(*how_it_ended(error))
            self._claim.release()
        except OSError as trouble:  # of a disk that is away: it must not hide what the run ended with
            self.say(f"warning: {self.folder} could not be left in order: {trouble}")

    def begin(self, step: int) -> None:
        """The run is about to go on after `step`."""
        self.step = step
        self._say("running", "")

    def stop(self, why: str) -> None:
        """The run leaves before its end, as it was asked to."""
        self._conclude("stopped", why)

    @property
    def is_lost(self) -> bool:
        """Whether another run took the folder because this one was silent for too long; rank 0 alone knows."""
        return self._claim.lost

    def _take_folder(self) -> None:
        holder = self._claim.take() if rank() == 0 else None
        if holder is not None:
            self._wait_for_silence(holder)

    def _wait_for_silence(self, holder: Holder) -> None:
        """A run of another machine may have died: it is given the time it may be silent for, and refused if heard."""
        last_touched = touched(self._claim.path)
        if not holder.is_on_this_machine:
            left_s = max(0.0, SILENT_S - silence_s(self._claim.path))
            self.say(f"{self.folder} is held by {holder.words()}: waiting {left_s:.0f} s at most for a sign of life")
        while not holder.is_on_this_machine and touched(self._claim.path) == last_touched:
            time.sleep(LOOK_EVERY_S)
            if self._claim.take() is None:
                return
        raise TrainingError(
            f"{self.folder} is in use by {holder.words()}",
            expected="one run at a time in a folder",
            mend="wait for that run or end it, or give another --run.out",
        )

    def _conclude(self, state: str, why: str) -> None:
        """A start that was refused leaves the word of the run before it, if there is one."""
        if self._state is not None or not has_said_something(self.folder):
            self._say(state, why)

    def _say(self, state: str, why: str) -> None:
        now = time.time()
        try:
            with self._writing:
                self._state = RunState(state, self.step, self.steps, now, now, socket.gethostname(), os.getpid(), why)
                self._write()
        except NoRoomError as error:
            self.say(f"warning: {error.given}")  # whether a full disk ends the run is not decided here

    def _write(self) -> None:
        with self._writing:
            if rank() == 0 and self._state is not None and not self.is_lost:
                self._state = replace(self._state, step=self.step, heartbeat=time.time())
                write_run_state(self.folder, self._state)


def has_said_something(folder: Path) -> bool:
    """Whether a run left its word there; one that cannot be read is none, and gives way to the next."""
    try:
        return read_run_state(folder) is not None
    except DataError:
        return False


def touched(path: Path) -> int:
    """When a file was touched, in whatever units; 0 when it is gone."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def how_it_ended(error: BaseException | None) -> tuple[str, str]:
    """The state of a run that ended with this error, or without one, and why."""
    if error is None:
        return "finished", ""
    if isinstance(error, RankLost):
        return "failed", error.words
    if isinstance(error, SystemExit):
        is_saved = error.code == EXIT_SAVED_ON_SIGNAL
        return ("stopped", "a signal") if is_saved else ("failed", f"left with status {error.code}")
    if isinstance(error, KeyboardInterrupt):
        return "stopped", "interrupted"
    said = error.given if isinstance(error, LargedeError) else f"{type(error).__name__}: {error}"
    return "failed", hide_in_error(said)


def folder_lost(folder: Path) -> TrainingError:
    return TrainingError(
        f"another run has taken {folder}: this one had not been heard for {SILENT_S:.0f} s",
        expected="one run at a time in a folder",
        mend="let the other one go on; this one has not touched the folder since",
    )
