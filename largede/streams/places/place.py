"""What a place is: files by plain names, read in ranges or from end to end, and what can go wrong with that."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from largede.errors import DataError
from largede.streams.places.patience import Passing, Patience

T = TypeVar("T")

PIECE_BYTES = 1 << 23
"""Of a file that is read from end to end: large enough that the way to a far server does not count."""

# Letters, digits and . _ - alone, not beginning with . or -: no other folder, no option of a command, nothing that a
# shell or an address gives a meaning to.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class NotThere(Exception):
    """The place has no file of that name."""


class NotThereYet(Passing, NotThere):
    """The place knows no file of that name, but may only have been asked too early."""


class Unreadable(Exception):
    """These bytes cannot be had, although the file is there; the message says how that shows."""


class Unanswered(Unreadable):
    """The place failed at every attempt; other bytes of it may not be had either."""


class Place(ABC):
    """A folder of shards somewhere. It travels to other processes, which open their own files and connections.

    A subclass raises Passing for what may be over at the next attempt: it is tried again, with the place's patience.
    """

    is_near = False
    """True when a look at every file costs nothing."""

    def __init__(self, address: Any, patience: Patience) -> None:
        self.address = address
        self.patience = patience

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.address,)

    def __str__(self) -> str:
        return str(self.address)

    def where(self, name: str) -> str:
        """A file, for messages."""
        return f"{self}/{name}"

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset` on. Raises NotThere, Unreadable, or DataError when nothing may be read."""
        check_name(name)
        data = self._patiently(lambda: self._range(name, offset, size), name)
        if len(data) != size:
            raise Unreadable(f"has {len(data)} bytes of {size}")
        return data

    def read_all(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes. Raises as `read` does."""
        return b"".join(self.pieces(name, limit))

    def pieces(self, name: str, limit: int) -> Iterator[bytes]:
        """A whole file, piece by piece. Raises as `read` does; Unreadable when it is longer than `limit` bytes."""
        check_name(name)
        size = (self.sizes([name]) or {}).get(name)
        if size is None:
            raise NotThere(name)
        if size > limit:
            raise Unreadable(f"has {size} bytes, more than {limit}")
        for start in range(0, size, PIECE_BYTES):
            yield self.read(name, start, min(PIECE_BYTES, size - start))

    @abstractmethod
    def sizes(self, names: Sequence[str]) -> dict[str, int] | None:
        """Bytes of each of those files that is there; None when this place cannot say."""

    def close(self) -> None:
        """Let go of files, connections and processes; the next read opens what it needs again."""
        return

    @abstractmethod
    def _range(self, name: str, offset: int, size: int) -> bytes:
        """One attempt at `read`; fewer bytes only where the file ends."""

    def _patiently(self, attempt: Callable[[], T], name: str) -> T:
        try:
            return self.patience(attempt, self.where(name))
        except NotThere:
            raise
        except Passing as failure:
            raise Unanswered(f"cannot be read ({failure})") from None


def is_plain_name(name: str) -> bool:
    return _PLAIN_NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """The last guard: whoever reads names from outside refuses them earlier, in better words."""
    if not is_plain_name(name):
        raise DataError(
            f"{name!r} is no file name",
            expected="letters, digits and . _ - alone",
            mend="use an index as `largede-data shard` writes it",
        )
