"""How long a GPU's streams are held up by collectives: the host's clock sees them only being enqueued.

An event before and one after each call and each wait, on the stream that is current there, enclose the collective, the
time until the last rank joins it included. Without a GPU nothing is measured; the host waits itself there.
"""

import contextlib
from collections import deque
from typing import Any

import torch

MOST_OPEN = 1024
NOTHING = contextlib.nullcontext()


class StreamTimes:
    """Adds up the seconds between pairs of CUDA events; an event is used again once it has been read."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.open: deque[tuple[Any, Any]] = deque()
        self.free: list[tuple[Any, Any]] = []

    def measured(self) -> contextlib.AbstractContextManager[Any]:
        """Put around what is enqueued to the current stream."""
        if not torch.cuda.is_initialized() or torch.cuda.is_current_stream_capturing():
            return NOTHING
        return self._between_events()

    @contextlib.contextmanager
    def _between_events(self) -> Any:
        events = self.free.pop() if self.free else (_event(), _event())
        events[0].record()
        yield
        events[1].record()
        self.open.append(events)
        if len(self.open) > MOST_OPEN:
            self._read_oldest()

    def take_s(self) -> float:
        """Seconds since the last taking. Waits for the streams to get as far as they have been told."""
        while self.open:
            self._read_oldest()
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def _read_oldest(self) -> None:
        begun, ended = events = self.open.popleft()
        ended.synchronize()
        self.seconds += begun.elapsed_time(ended) / 1000
        self.free.append(events)


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)


stream_times = StreamTimes()
