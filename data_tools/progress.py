"""A line now and then about how far a long pass is."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 5.0
_ITEMS_BETWEEN_LOOKS = 1024
_UNITS = ((1e6, "MB"), (1e3, "kB"), (1, "bytes"))


def with_progress(items: Iterable[T], label: str, noun: str = "pairs") -> Iterator[T]:
    """Hand the items through; every few seconds say on standard error how many passed and how many a second."""
    started = last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if count % _ITEMS_BETWEEN_LOOKS:
            continue
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            print(f"{label}: {count:,} {noun}, {count / (now - started):,.0f} a second", file=sys.stderr)
            last = now


class ByteProgress:
    """While the `with` block runs, says every few seconds how far a counter is on its way to `total` bytes."""

    def __init__(self, label: str, total: int, count: Callable[[], int]) -> None:
        self._label = label
        self._total = total
        self._count = count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _report(self) -> None:
        started = time.monotonic()
        while not self._ended.wait(_SECONDS_BETWEEN_LINES):
            line = progress_line(self._count(), self._total, time.monotonic() - started)
            print(f"{self._label}: {line}", file=sys.stderr)


def progress_line(count: int, total: int, seconds: float) -> str:
    """What was read may come to more than was expected: then all of it is, and nothing is said of time left."""
    if not total:
        return "under way"
    rate, done = count / seconds, min(count, total)
    left = f", {duration((total - done) / rate)} left" if count and done < total else ""
    size, unit = next((each for each in _UNITS if total >= each[0]), _UNITS[-1])
    return f"{done / size:,.0f} of {total / size:,.0f} {unit}, {rate / size:,.1f} {unit}/s{left}"


def duration(seconds: float) -> str:
    """In the two largest units that matter: 3 h 5 min, 5 min 20 s, 20 s."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {whole_seconds} s" if minutes else f"{whole_seconds} s"
