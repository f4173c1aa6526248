"""What this rank is doing, and where its time goes.

One `Activity` belongs to the process: its step, its phase, the collective it is in and the samples of its batch. The
trainer and `liveness.calls` write it; the watchdog reads it from its own thread; `liveness.lag` reads its seconds.
"""

import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

STARTING = "starting"
FIRST_STEP = "first step"
STEPPING = "stepping"
READING = "waiting for data"
LOADING = "loading"
SAVING = "saving"

LONG_PHASES = frozenset([STARTING, FIRST_STEP, LOADING, SAVING])
"""Phases in which one rank may rightly work for long while the others wait for it."""

LONG_PHASE_FACTOR = 6
"""How many times guard.hang_after_s these phases may last without a sign of progress."""

COLLECTIVES = "collectives"
CALLS_REMEMBERED = 64


class Call(NamedTuple):
    """One collective: the how many-th of this process, over all groups, and the step it belongs to."""

    number: int
    name: str
    bytes: int
    step: int

    def __str__(self) -> str:
        return f"{self.name} #{self.number} ({self.bytes:,} bytes)"


class _ThreadOfStep(threading.local):
    """Whether a thread's work is the step's: the main thread, and autograd's, which Python did not start.

    A thread that Python started (saving in the background) works beside the step.
    """

    def __init__(self) -> None:
        thread = threading.current_thread()
        self.is_steps = thread is threading.main_thread() or thread.name.startswith("Dummy-")


class Activity:
    """Written by the step's threads; reading it from another gives a state that was true a moment ago."""

    def __init__(self) -> None:
        self.step = 0
        self.phase = STARTING
        self.batch_step: int | None = None
        self.samples: Sequence[str] = ()
        self.call: Call | None = None
        self.failed_call: Call | None = None
        self.calls: deque[Call] = deque(maxlen=CALLS_REMEMBERED)
        self.steps: deque[str] = deque(maxlen=5)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.longest_alone_s = 0.0
        self.since = time.monotonic()
        self.alone_since = self.since
        self._thread = _ThreadOfStep()

    @property
    def is_of_step(self) -> bool:
        """Whether the calling thread's work is the step's."""
        return self._thread.is_steps

    @property
    def idle_s(self) -> float:
        """Seconds since anything last began, ended or pulsed."""
        return time.monotonic() - self.since

    def progress(self) -> None:
        """Book the time since the last change on what was being done, and begin anew."""
        now = time.monotonic()
        self.seconds[COLLECTIVES if self.call else self.phase] += now - self.since
        self.since = now

    def enter_phase(self, name: str) -> str:
        """Change the phase; gives the one before."""
        self.progress()
        before, self.phase = self.phase, name
        return before

    def begin_start(self) -> None:
        """A run is being set up."""
        self.enter_phase(STARTING)
        self.failed_call = None

    def begin_run(self, steps_done: int) -> None:
        """The loop begins; its first step may take long."""
        self.enter_phase(FIRST_STEP)
        self.step = steps_done + 1

    def end_step(self, step: int) -> None:
        """`step` is done; what follows belongs to the next one."""
        self.enter_phase(STEPPING)
        self.steps.append(f"step {step} done at {time.strftime('%H:%M:%S')}")
        self.step = step + 1

    def take(self, batch_step: int, samples: Sequence[str]) -> None:
        """The batch that the following work is about."""
        self.batch_step, self.samples = batch_step, samples

    def begin_call(self, name: str, size: int) -> Call:
        """Enter a new collective."""
        call = Call(self.calls[-1].number + 1 if self.calls else 1, name, size, self.step)
        self.calls.append(call)
        self.enter_call(call)
        return call

    def enter_call(self, call: Call) -> None:
        """Go on in a collective begun before: wait for its end."""
        self.progress()
        self.longest_alone_s = max(self.longest_alone_s, self.since - self.alone_since)
        self.call = call

    def leave_call(self, *, failed: bool = False) -> None:
        self.progress()
        if failed:
            self.failed_call = self.call
        self.call = None
        self.alone_since = self.since


activity = Activity()


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Inside, this rank is in phase `name`. In a thread beside the step it changes nothing."""
    if not activity.is_of_step:
        yield
        return
    before = activity.enter_phase(name)
    try:
        yield
    finally:
        activity.enter_phase(before)


def pulse() -> None:
    """Say in each round of long work that it is getting on. In a thread beside the step it changes nothing."""
    if activity.is_of_step:
        activity.progress()
