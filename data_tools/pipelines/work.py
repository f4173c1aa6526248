"""Unfinished work: its stages, its folder, and the lock that keeps two commands from working there at once."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from datatrove.pipeline.base import PipelineStep


@dataclass(frozen=True)
class Stage:
    """Steps that `tasks` tasks run, each on its own; a stage starts when the one before it has ended."""

    name: str
    tasks: int
    steps: list[PipelineStep]


@dataclass(frozen=True)
class Work:
    """Where an unfinished job keeps its logs, marks and intermediate files."""

    folder: Path

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    def logs(self, stage: Stage) -> Path:
        return self.folder / "logs" / stage.name

    def unfinished(self, stage: Stage) -> list[int]:
        """The tasks that datatrove has not marked as finished."""
        marks = self.logs(stage) / "completions"
        return [rank for rank in range(stage.tasks) if not (marks / f"{rank:05d}").exists()]

    def has_finished_tasks(self) -> bool:
        return any(self.folder.glob("logs/*/completions/*"))


@contextlib.contextmanager
def sharing(lock: Path) -> Iterator[None]:
    """Held by each local task: it may outlive the command that began it, when that was killed."""
    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def only_one_command(work: Work) -> Iterator[None]:
    """Wait until no other command works in the folder, nor any task that outlived a killed one."""
    with _locked(work) as held:
        # Tasks of this command take a share as well; what others wait for is that all shares are given back.
        fcntl.flock(held, fcntl.LOCK_SH)
        yield


def _locked(work: Work) -> BinaryIO:
    """The lock of the folder, open and held alone."""
    while True:
        work.folder.mkdir(parents=True, exist_ok=True)
        held = work.lock.open("wb")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for an earlier command that still works in {work.folder}", file=sys.stderr)
            fcntl.flock(held, fcntl.LOCK_EX)
        if work.lock.exists() and os.path.samestat(work.lock.stat(), os.fstat(held.fileno())):
            return held
        held.close()  # that command took the folder away, and its lock with it
