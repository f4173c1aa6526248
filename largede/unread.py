"""Output that nobody reads any more (`largede train | head`, a terminal that was closed) must not end a run."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from largede.errors import MachineError
from largede.files import is_no_room


@contextmanager
def going_on_unread() -> Iterator[None]:
    """Within the block, what cannot be printed is dropped: a run says the same in its folder.

    Raises:
        MachineError: a pipe broke that is not the output; it must not be taken for a reader who left.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and cast(TextIO, Lenient(stream)) for stream in before)
    try:
        yield
    except BrokenPipeError as error:
        raise MachineError(
            f"a process that this one talks to has ended ({error})",
            expected="helpers that live as long as the run",
            mend="look above for what ended it, and give the same command again",
        ) from error
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


class Lenient:
    """A text stream that never fails to take a line. On a full disk lines are lost; without a reader, all of them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            if not is_no_room(error):  # the reader will not come back: what is still in the buffer must go somewhere
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
