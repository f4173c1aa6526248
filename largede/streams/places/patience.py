"""Reading that fails in passing is tried again; reading that takes long says so while it does."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
"""Before the second attempt; doubled before each further one. A dropped connection is over by then."""
ATTEMPTS = 8
"""Pauses of 0.5 to 32 s, a minute in all: stores that ask for fewer requests, or restart, are back within that; ranks
that wait for this one do not give up before several minutes."""
SLOW_S = 30.0
"""A block takes milliseconds; this is no longer an ordinary wait."""
SAID_EVERY_S = 60.0

# Not the generator that anything else draws from.
_jitter = random.Random()


class Passing(Exception):
    """A failure that may be over at the next attempt; the message says what it was."""


class Patience:
    """Makes `attempts` attempts at most, pausing between them, and says so now and then."""

    def __init__(self, attempts: int = ATTEMPTS) -> None:
        self.attempts = attempts
        self._said_at = float("-inf")
        self._unsaid = 0

    def __call__(self, attempt: Callable[[], T], what: str) -> T:
        """What `attempt` gives. Raises the last Passing when every attempt failed, anything else at once."""
        for tried in range(1, self.attempts):
            try:
                with slowness_said(what):
                    return attempt()
            except Passing as failure:
                # Ranks that were turned away together must not come back together.
                pause = FIRST_PAUSE_S * 2 ** (tried - 1) * _jitter.uniform(0.5, 1.0)
                self._say(f"{what}: {failure}; attempt {tried + 1} of {self.attempts} in {pause:.1f} s")
            time.sleep(pause)
        with slowness_said(what):
            return attempt()

    def _say(self, line: str) -> None:
        now = time.monotonic()
        if now - self._said_at < SAID_EVERY_S:
            self._unsaid += 1
            return
        log.warning("%s%s", line, f" ({self._unsaid} more failures since the last such line)" if self._unsaid else "")
        self._said_at, self._unsaid = now, 0


class _Watch:
    """A thread that looks at the reads under way in this process, started with the first of them."""

    def __init__(self) -> None:
        self._reads: dict[int, tuple[str, float]] = {}
        self._process = -1

    def begin(self, what: str) -> None:
        if self._process != os.getpid():
            # A forked process inherits the numbers of reads under way elsewhere, but not the thread.
            self._process, self._reads = os.getpid(), {}
            threading.Thread(target=self._look, name="slow reads", daemon=True).start()
        self._reads[threading.get_ident()] = (what, time.monotonic())

    def end(self) -> None:
        self._reads.pop(threading.get_ident(), None)

    def _look(self) -> None:
        said: dict[tuple[str, float], float] = {}
        while True:
            time.sleep(SLOW_S / 6)
            now = time.monotonic()
            under_way = set(self._reads.copy().values())
            said = {read: at for read, at in said.items() if read in under_way}
            for what, since in under_way:
                if now - said.get((what, since), since) >= SLOW_S:
                    said[what, since] = now
                    log.warning("%s: reading has taken %.0f s so far", what, now - since)


_watch = _Watch()


@contextmanager
def slowness_said(what: str) -> Iterator[None]:
    """Log a line every SLOW_S seconds that the block takes."""
    _watch.begin(what)
    try:
        yield
    finally:
        _watch.end()
