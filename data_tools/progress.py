"""A line now and then about how far a long pass is."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 5.0
_ITEMS_BETWEEN_LOOKS = 1024


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
