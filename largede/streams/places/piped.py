"""A shell command that writes a file to its standard output: `pipe:aws s3 cp s3://bucket/shards/{name} -`.

A command cannot seek, so whatever it writes before a block has to be read through. That is kept in a temporary file
without a name until the shard is left, because the blocks of a shard are read in random order: a command started anew
for every block behind the last one would transfer a shard of n blocks some n/3 times.
"""

import os
import signal
import subprocess
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypeVar

from largede.errors import DataError, MachineError
from largede.runs.redact import HIDDEN_COMMAND, hide_secrets
from largede.streams.places.patience import Passing, Patience, log
from largede.streams.places.place import PIECE_BYTES, Place, Unreadable, check_name

T = TypeVar("T")

NAME = "{name}"
OPEN_OUTPUTS = 64
"""Most commands running, each with the shard it has read so far on disk; one needed again after that starts anew."""
ATTEMPTS = 3
"""Commands that fetch files try again by themselves."""

_ENDING_S = 5.0
_SHOWN_BYTES = 500


class PipedPlace(Place):
    """The files that a command writes out; `{name}` in it stands for the name."""

    def __init__(self, command: str) -> None:
        super().__init__(command, Patience(ATTEMPTS))
        if NAME not in command:
            raise DataError(
                f"{HIDDEN_COMMAND} has no {NAME}",
                expected=f"a command that writes out the file {NAME}",
                mend=f"such as pipe:aws s3 cp s3://bucket/shards/{NAME} -",
            )
        self._process = os.getpid()
        self._outputs: OrderedDict[str, Output] = OrderedDict()

    def __str__(self) -> str:
        return HIDDEN_COMMAND  # not the command: what is said here ends in logs and run folders

    def where(self, name: str) -> str:
        return f"{self}, {name}"

    def sizes(self, names: Sequence[str]) -> None:
        return None

    def pieces(self, name: str, limit: int) -> Iterator[bytes]:
        check_name(name)
        position = 0
        try:
            while piece := self._piece(name, position):
                position += len(piece)
                if position > limit:
                    raise Unreadable(f"has more than {limit} bytes")
                yield piece
        finally:
            self._end(name)

    def close(self) -> None:
        for name in list(self._outputs):
            self._end(name)

    def _piece(self, name: str, position: int) -> bytes:
        return self._patiently(lambda: self._range(name, position, PIECE_BYTES), name)

    def _range(self, name: str, offset: int, size: int) -> bytes:
        output = self._output(name)
        if offset - output.length > PIECE_BYTES:
            log.warning("%s: reading through %d bytes to reach a block", output.what, offset - output.length)
        try:
            output.reach(offset + size)
            return os.pread(output.kept.fileno(), size, offset)
        except Passing:
            self._end(name)
            raise
        except OSError as error:
            self._end(name)
            raise MachineError(
                f"what {self} writes cannot be kept in {tempfile.gettempdir()} ({error.strerror})",
                expected=f"room for the shards being read, up to {OPEN_OUTPUTS} for each reader",
                mend="set TMPDIR to a folder with room, or copy the shards here",
            ) from None

    def _output(self, name: str) -> "Output":
        if self._process != os.getpid():
            # What the process this one was forked from has open is not ours to end.
            self._process, self._outputs = os.getpid(), OrderedDict()
        if name not in self._outputs:
            while len(self._outputs) >= OPEN_OUTPUTS:
                self._end(next(iter(self._outputs)))
            self._outputs[name] = Output(self.address.replace(NAME, name), self.where(name))
        self._outputs.move_to_end(name)
        return self._outputs[name]

    def _end(self, name: str) -> None:
        output = self._outputs.pop(name, None)
        if output is not None:
            output.close()

    def _patiently(self, attempt: Callable[[], T], name: str) -> T:
        """A command that fails is no damaged block: every block would be."""
        try:
            return self.patience(attempt, self.where(name))
        except Passing as failure:
            raise DataError(
                f"{self.where(name)} {failure}",
                expected="a command that writes out the file and ends with status 0",
                mend=f"run what follows pipe: by hand, with {name} for {NAME}",
            ) from None


class Output:
    """What a running command has written so far, in `kept`, `length` bytes of it."""

    def __init__(self, command: str, what: str) -> None:
        self.what = what
        self.length = 0
        self.kept = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # open as long as this object is
        self._errors = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        # A session of its own, so that everything the shell started can be ended with it.
        self._process = subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
        )

    def reach(self, end: int) -> None:
        """Read on to `end` bytes, or to the command's own end. Raises Passing when that is a failure."""
        assert self._process.stdout is not None
        while self.length < end:
            data = self._process.stdout.read(min(PIECE_BYTES, end - self.length))
            if not data:
                self._demand_success()
                return
            self.kept.write(data)
            self.length += len(data)

    def close(self) -> None:
        """End the command and everything it started; nothing of it is left, as a process or on disk."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                break
            os.killpg(self._process.pid, number)
            try:
                self._process.wait(_ENDING_S)
            except subprocess.TimeoutExpired:
                continue
        self.kept.close()
        self._errors.close()

    def _demand_success(self) -> None:
        try:
            status = self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            raise Passing("closed its output but does not end") from None
        if status != 0:
            self._fail(status)

    def _fail(self, status: int) -> NoReturn:
        size = self._errors.seek(0, os.SEEK_END)
        said = os.pread(self._errors.fileno(), _SHOWN_BYTES, max(0, size - _SHOWN_BYTES)).decode(errors="replace")
        ending = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise Passing(f"{ending}: {hide_secrets(' '.join(said.split())) or 'it said nothing'}")
