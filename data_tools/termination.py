"""SIGTERM, from Slurm, a container or `kill`, ends a command as Ctrl-C does: it tidies up and says so."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from largede.verbs import Terminated

_held = False
_came = False


@contextmanager
def raising_on_sigterm() -> Iterator[None]:
    """In this block SIGTERM ends the worker processes and raises Terminated in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGTERM, _note)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _note:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def with_processes() -> Iterator[Callable[[], None]]:
    """Around all use of worker processes: SIGTERM ends them at once, Terminated is raised at the end of the block.

    An exception out of nowhere would leave locks of the pool held, and whoever waits for its threads would wait for
    ever; that its processes are gone the pool notices by itself. Call what is yielded when all processes are started:
    one that was half started when the signal came is ended then.
    """
    global _held, _came
    _held, _came = True, False
    try:
        yield _end_if_asked
    finally:
        _held = False
        _end_if_asked()


def _note(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    # Some send it twice, to the process and to its group; tidying up is under way then.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end_processes()
    if not _held:
        raise Terminated


def _end_if_asked() -> None:
    if _came:
        _end_processes()
        raise Terminated


def _end_processes() -> None:
    """Otherwise their tasks, which may take hours, would be waited for. What they were writing is made again."""
    from multiprocessing import active_children

    for child in active_children():
        child.terminate()
