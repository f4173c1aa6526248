"""Notices that a run hangs, writes down what every rank was doing, and names the one that holds the others up.

A thread of every rank writes a heartbeat into the run folder (`liveness.heartbeat`) and looks at its own rank. When
that has made no progress for longer than its phase allows, the thread looks at the others' heartbeats. Only when none
of them makes progress either, the run hangs: one rank that saves for an hour, pulsing, holds nobody up. Then

- the lowest rank that still beats (the reporter) opens `RUN/hangs/TIME-step-N/` and names it in its heartbeat;
- every rank that can writes `rank-00000.txt` there: what it was doing, and the Python stacks of all its threads;
- the reporter writes and prints the verdict (`liveness.hang`);
- with guard.on_hang "stop" every rank ends its process at once with status `EXIT_HUNG`, since a collective cannot be
  left otherwise.

A rank stuck in C with the interpreter's lock cannot run that thread. For it a timer of faulthandler, which needs no
lock and is put off at every beat, writes the stacks beside the heartbeat. SIGUSR2 to a rank writes its stacks to
`RUN/hangs/asked/rank-00000.txt` at any time, and the run goes on.
"""

import contextlib
import faulthandler
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from largede.config.recipe import GuardConfig
from largede.runs.redact import hide_in_error
from largede.training.liveness.activity import LONG_PHASE_FACTOR, LONG_PHASES, Activity, activity, phase, pulse
from largede.training.liveness.calls import calls_on_gpu, watch_collectives
from largede.training.liveness.hang import Account, verdict
from largede.training.liveness.heartbeat import (
    HeartbeatTable,
    Seen,
    heartbeat_of,
    process_state,
    read_heartbeat,
    this_place,
    write_heartbeat,
)

__all__ = ["EXIT_HUNG", "RankLost", "Watchdog", "end_watch", "phase", "pulse", "start_watch", "until_watch_ends"]

EXIT_HUNG = 76
"""Exit status when ranks hang or were lost: the last checkpoint stands, and the same command continues from it."""

BEATS_PER_ALLOWANCE = 40
SHORTEST_BEAT_S, LONGEST_BEAT_S = 0.1, 15.0
SILENT_FRACTION = 0.25
"""The part of guard.hang_after_s after which a heartbeat that stands still means silence. A network file system may
show a file late by up to a minute, so hang_after_s below 240 is for local folders."""

LOST_BEATS = 5


class RankLost(SystemExit):
    """Status 76: a collective failed because other ranks are gone; `words` say which."""

    def __init__(self, words: str) -> None:
        super().__init__(EXIT_HUNG)
        self.words = words


class Watchdog:
    """The watch over one rank; `start` and `close` it. `say_all` prints lines where a person reads them."""

    def __init__(
        self, folder: Path, guard: GuardConfig, rank: int, world_size: int, say_all: Callable[[str], None] | None = None
    ) -> None:
        assert guard.hang_after_s is not None
        self.hang_after_s = guard.hang_after_s
        self.stops = guard.on_hang == "stop"
        self.beats = folder / "heartbeats"
        self.hangs = folder / "hangs"
        self.rank = rank
        self.place = this_place(rank)
        self.table = HeartbeatTable(self.beats, world_size)
        self.say_all = say_all or _print_at_once
        self.beat_s = min(max(self.hang_after_s / BEATS_PER_ALLOWANCE, SHORTEST_BEAT_S), LONGEST_BEAT_S)
        self.silent_s = SILENT_FRACTION * self.hang_after_s
        self.beat = 0
        self.hang = ""
        self.hang_since = 0.0
        self.last_look = self.awake_since = time.monotonic()
        self.has_verdict = False
        self.is_ending = threading.Event()
        self.writing = threading.Lock()
        self.thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self.locked_stacks: IO[str] | None = None
        self.asked_stacks: IO[str] | None = None

    def start(self) -> None:
        """Raises OSError when the run folder cannot be written."""
        asked = self.hangs / "asked"
        for folder in (self.beats, asked):
            folder.mkdir(parents=True, exist_ok=True)
            self._clear_after_more_ranks(folder)
        self.locked_stacks = self._stacks_path(self.rank).open("w", encoding="utf-8")
        self.asked_stacks = (asked / f"rank-{self.rank:05d}.txt").open("a", encoding="utf-8")
        faulthandler.register(signal.SIGUSR2, self.asked_stacks, all_threads=True)
        self._write()
        self.thread.start()

    def _clear_after_more_ranks(self, folder: Path) -> None:
        """Remove heartbeats and empty files of ranks that this part of the run has not: the one before was killed."""
        for path in folder.glob("rank-*.*"):
            number = path.stem.removeprefix("rank-")
            if number.isdecimal() and int(number) >= self.table.world_size:
                path.unlink(missing_ok=True) if path.suffix == ".json" else _remove_empty(path)

    def close(self, left: str = "", *, is_lost: bool = False) -> None:
        """End the watch; `left` tells the others why this rank leaves early, `is_lost` that it was by another's fault.

        Without `left`, nothing of it stays behind.
        """
        self.is_ending.set()
        self.thread.join()
        if not left:
            self._go_on()
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(signal.SIGUSR2)
        for file in (self.locked_stacks, self.asked_stacks):
            if file is not None:
                file.close()
                _remove_empty(Path(file.name))
        with contextlib.suppress(OSError):  # a full disk must not hide the error that the run leaves with
            self._write(left, is_lost=is_lost)
        if not left:
            (self.beats / f"rank-{self.rank:05d}.json").unlink(missing_ok=True)
        for folder in (self.hangs / "asked", self.hangs, self.beats):
            _remove_empty(folder)

    def allowance_s(self) -> float:
        """How long this rank's phase may last without progress."""
        return self.hang_after_s * (LONG_PHASE_FACTOR if activity.phase in LONG_PHASES else 1)

    def _run(self) -> None:
        failed = ""
        while not self.is_ending.wait(self.beat_s):
            try:
                self._watch()
                failed = ""
            except OSError as error:  # a full disk, a file system that is away for a while: it may come back
                if str(error) != failed:
                    failed = str(error)
                    self.say_all(f"watchdog of rank {self.rank}: cannot write its heartbeat: {error}")

    def idle_s(self) -> float:
        """Seconds without progress, those before a pause of the whole process left out.

        When a scheduler suspends a job for an hour, no rank has hung for an hour.
        """
        return min(activity.idle_s, time.monotonic() - self.awake_since)

    def is_over(self) -> bool:
        return self.idle_s() > self.allowance_s()

    def _watch(self) -> None:
        now = time.monotonic()
        if now - self.last_look > self.silent_s:
            self.awake_since = now
        self.last_look = now
        if self.locked_stacks is not None and os.fstat(self.locked_stacks.fileno()).st_size:
            os.truncate(self.locked_stacks.name, 0)  # it fired, but the lock has come free
            os.lseek(self.locked_stacks.fileno(), 0, os.SEEK_SET)
        # Put off as long as this thread gets its turn; it has fired before the others give their verdict.
        faulthandler.dump_traceback_later(0.75 * self.hang_after_s, file=self.locked_stacks or sys.stderr)
        self._write()
        if time.monotonic() - now > self.silent_s:
            return  # paused amid this look: the next one will see the gap
        if self.is_over():
            self._look_around()
        elif self.hang or self.table.seen:
            self._go_on()

    def _write(self, left: str = "", *, is_lost: bool = False) -> None:
        with self.writing:  # the step's thread writes, too, when it looks for who was lost
            self.beat += 1
            is_over = self.is_over()
            beat = heartbeat_of(activity, self.place, self.beat, is_over=is_over)
            beat = replace(beat, hang=self.hang, has_verdict=self.has_verdict, left=left, is_lost=is_lost)
            write_heartbeat(self.beats, replace(beat, on_gpu=calls_on_gpu() if is_over else []))

    def _look_around(self) -> None:
        """This rank is over its time: take part in a hang that was declared, or be the one to declare it."""
        seen = self.table.read()
        self._end_if_told(seen)
        lower = [other for rank, other in seen.items() if rank < self.rank and not self._is_away(other)]
        if not lower:
            self._report(seen)
            return
        declared = lower[0].heartbeat
        if declared and declared.hang and declared.hang != self.hang:
            self._take_part(declared.hang)

    def _end_if_told(self, seen: dict[int, Seen]) -> None:
        """End this process when a verdict has ended the run; the rank that gave it may be gone by now."""
        beats = [other.heartbeat for other in seen.values()]
        told = [beat.hang for beat in beats if beat is not None and beat.has_verdict]
        if self.stops and told:
            if not self.hang:
                self._take_part(told[0])
            os._exit(EXIT_HUNG)

    def _report(self, seen: dict[int, Seen]) -> None:
        """As the lowest rank that is there: declare the hang, wait for the others' stacks, give the verdict."""
        others = [other for rank, other in seen.items() if rank != self.rank]
        if not all(self._is_away(other) or (other.heartbeat and other.heartbeat.is_over) for other in others):
            return
        self._end_if_told(self.table.read())  # by one that has given the verdict and ended since it was looked at
        if not self.hang:
            self._take_part(f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-step-{activity.step}")
        there = [other.heartbeat for other in others if not self._is_away(other)]
        is_complete = all(beat is not None and beat.hang == self.hang for beat in there)
        waited_s = time.monotonic() - self.hang_since
        if not self.has_verdict and (is_complete or waited_s > self.silent_s):
            self._give_verdict()
        if self.has_verdict and self.stops:
            os._exit(EXIT_HUNG)

    def _take_part(self, hang: str) -> None:
        self.hang, self.hang_since, self.has_verdict = hang, time.monotonic(), False
        write_stacks(self.hangs / hang / f"rank-{self.rank:05d}.txt", activity, str(self.place))
        self._write()

    def _give_verdict(self) -> None:
        folder = self.hangs / self.hang
        lines = [f"no rank has made progress for {self.idle_s():.0f} s:", *verdict(self.accounts(self.table))]
        lines.append(f"what every rank was doing, with its stacks: {folder}")
        if self.stops:
            lines.append(f"the run ends with status {EXIT_HUNG}; the same command continues from the last checkpoint")
        text = "\n  ".join(lines)
        self.say_all(f"HANG at step {activity.step}: {text}")
        self.has_verdict = True
        try:
            (folder / "verdict.txt").write_text(text + "\n", encoding="utf-8")
        finally:  # on a full disk, too: the others wait for it
            self._write()

    def _go_on(self) -> None:
        """Progress again: forget the hang, and what was seen of the others."""
        if self.has_verdict:
            waited_s = time.monotonic() - self.hang_since
            self.say_all(f"the run goes on at step {activity.step}, {waited_s:.0f} s after the hang was reported")
        self.hang, self.has_verdict = "", False
        self.table.forget()

    def _is_away(self, other: Seen) -> bool:
        """Not able to answer: left, ended, stopped, or silent."""
        beat = other.heartbeat
        if beat is None:
            return other.still_s > self.silent_s
        return bool(beat.left or process_state(beat.place, self.place)) or other.still_s > self.silent_s

    def accounts(self, table: HeartbeatTable) -> list[Account]:
        """Every rank as it is seen from here."""
        return [self._account(rank, other) for rank, other in sorted(table.read().items())]

    def _account(self, rank: int, other: Seen) -> Account:
        if rank == self.rank:
            return Account(rank, read_heartbeat(self.beats, rank))
        state = process_state(other.heartbeat.place, self.place) if other.heartbeat else ""
        silent_s = other.still_s if other.still_s > self.silent_s else None
        return Account(rank, other.heartbeat, silent_s, state, self._stacks_of_locked(rank) if silent_s else "")

    def _stacks_path(self, rank: int) -> Path:
        return self.beats / f"rank-{rank:05d}.stacks"

    def _stacks_of_locked(self, rank: int) -> str:
        """Bring the stacks that a silent rank's timer wrote to the others'; their file, or nothing."""
        stacks, kept = self._stacks_path(rank), self.hangs / self.hang / f"rank-{rank:05d}.txt"
        if not stacks.is_file() or stacks.stat().st_size == 0:
            return ""
        if self.hang:
            shutil.copyfile(stacks, kept)
        return str(kept if self.hang else stacks)

    def explain_loss(self) -> list[str]:
        """After a collective failed: wait until it is known which rank was lost, and say so; [] when none is missed.

        Where the failure is a hang being ended, this process is ended, too.
        """
        table = HeartbeatTable(self.beats, self.table.world_size)
        still_s = LOST_BEATS * self.beat_s
        until = time.monotonic() + still_s + 1.0
        while True:
            others = [account for account in self.accounts(table) if account.rank != self.rank]
            gone = [account for account in others if account.is_gone or table.seen[account.rank].still_s > still_s]
            self._end_if_told(table.read())  # once more: whoever is gone may have given the verdict before
            if any(account.is_gone for account in gone) or time.monotonic() > until:
                return verdict([a if a.is_gone else replace(a, silent_s=still_s) for a in gone])
            time.sleep(self.beat_s / 2)


_current: Watchdog | None = None


def start_watch(folder: Path, guard: GuardConfig, rank: int, world_size: int) -> None:
    """Watch this rank from now on, in place of any watch before. Raises OSError where the folder cannot be written."""
    global _current
    end_watch()
    watch_collectives()
    activity.begin_start()
    if guard.hang_after_s is not None:
        watch = Watchdog(folder, guard, rank, world_size)
        watch.start()
        _current = watch


def end_watch(error: BaseException | None = None) -> None:
    """End the watch, for `error` if there is one.

    Raises:
        RankLost: `error` came out of a collective because another rank is gone; who, is printed.
    """
    global _current
    watch, _current = _current, None
    if watch is None:
        return
    call = activity.failed_call
    failed_in_collective = call is not None and isinstance(error, RuntimeError)
    lost = watch.explain_loss() if failed_in_collective else []
    watch.close(_reason(error), is_lost=bool(lost))
    if lost:
        lines = [f"rank {watch.rank} lost the others in {call} of step {activity.step}:", *lost]
        _print_at_once("\n  ".join([*lines, "the same command continues from the last checkpoint"]))
        raise RankLost(lost[0]) from error


@contextlib.contextmanager
def until_watch_ends() -> Iterator[None]:
    """End the watch after the block, for the error that it ends with; see `end_watch`."""
    try:
        yield
    except BaseException as error:
        end_watch(error)
        raise
    end_watch()


def _reason(error: BaseException | None) -> str:
    """What the others are told; nothing where all leave together."""
    if error is None or isinstance(error, SystemExit):
        return ""
    return hide_in_error(f"{type(error).__name__}: {(str(error) or 'no words').splitlines()[0]}")


def write_stacks(path: Path, doing: Activity, place: str) -> None:
    """What a rank is doing and the Python stacks of all its threads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        print(f"{place}, {time.strftime('%Y-%m-%d %H:%M:%S')}", file=file)
        print(f"step {doing.step}, phase {doing.phase}, nothing new for {doing.idle_s:.1f} s", file=file)
        print(f"in collective: {doing.call or 'none'}", file=file)
        print(f"last collectives: {'; '.join(map(str, tuple(doing.calls)[-8:])) or 'none'}", file=file)
        for call in calls_on_gpu():
            print(f"on the GPU: {call}", file=file)
        print(f"last steps: {'; '.join(tuple(doing.steps)) or 'none'}", file=file)
        print(f"batch {doing.batch_step}, its samples:", *doing.samples, sep="\n  ", file=file)
        print("stacks, newest call first:", file=file, flush=True)
        faulthandler.dump_traceback(file, all_threads=True)


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):  # not empty, or another rank was first
        if path.is_dir():
            path.rmdir()
        elif path.stat().st_size == 0:
            path.unlink()


def _print_at_once(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
