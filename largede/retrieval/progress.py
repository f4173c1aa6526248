"""A line every few seconds: how much is done, how fast, how long it will still take."""

import sys
import time
from datetime import timedelta


class Progress:
    """Counts `total` things named by `noun`; prints to the error stream, so that results can be piped."""

    def __init__(self, total: int, noun: str, *, prefix: str = "", every_s: float = 5.0) -> None:
        self._total = total
        self._noun = noun
        self._prefix = prefix
        self._every_s = every_s
        self._done = 0
        self._begin = self._last = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last >= self._every_s:
            self._last = now
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        rate = self._done / max(time.monotonic() - self._begin, 1e-9)
        left = timedelta(seconds=round((self._total - self._done) / max(rate, 1e-9))) if self._done else "?"
        return f"{self._prefix}{self._done:,} of {self._total:,} {self._noun}, {rate:,.0f}/s, {left} left"
