"""SIGTERM, from Slurm, a container or `kill`, ends a command as Ctrl-C does: it tidies up and says so."""

import signal
import threading
from collections.abc import Iterator
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
def sigterm_held() -> Iterator[None]:
    """While this block starts processes SIGTERM waits: one half started could not be ended."""
    global _held, _came
    _held, _came = True, False
    try:
        yield
    except Exception:
        if not _came:
            raise  # otherwise what starts them was ended by the same signal, sent to all
    finally:
        _held = False
    if _came:
        _end()


def _note(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    # Some send it twice, to the process and to its group; tidying up is under way then.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not _held:
        _end()


def _end() -> None:
    from multiprocessing import active_children

    for child in active_children():
        # Otherwise their tasks, which may take hours, would be waited for. What they were writing is made again.
        child.terminate()
    raise Terminated
