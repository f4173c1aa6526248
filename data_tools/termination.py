"""SIGTERM, from Slurm, a container or `kill`, ends a command as Ctrl-C does: it tidies up and says so."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from largede.verbs import Terminated


@contextmanager
def raising_on_sigterm() -> Iterator[None]:
    """In this block SIGTERM ends the worker processes and raises Terminated in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    from multiprocessing import active_children

    # Some send it twice, to the process and to its group; tidying up is under way.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for child in active_children():
        # Otherwise their tasks, which may take hours, would be waited for. What they were writing is made again.
        child.terminate()
    raise Terminated
