"""A local folder, or one that is mounted: one pread a block, through descriptors that stay open."""

import errno
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from largede.streams.places.patience import Passing, Patience
from largede.streams.places.place import NotThere, Place, Unreadable, check_name

OPEN_FILES = 256
"""Most files held open: the shard each lane is in, and well below the 1,024 that a process may usually hold."""

# What mounted folders answer while their server is away or was restarted, what a tired disk answers, and what passes
# once our own descriptors are closed.
_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.EAGAIN,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EMFILE,
    errno.ENFILE,
}


class LocalPlace(Place):
    """A folder. A file that is replaced under way is read in its old form by whoever holds it open."""

    is_near = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Patience())
        self.folder = folder
        self._opened = lru_cache(OPEN_FILES)(_OpenFile)

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        found = {}
        for name in names:
            check_name(name)
            try:
                found[name] = os.stat(os.path.join(self.folder, name)).st_size
            except (FileNotFoundError, NotADirectoryError):
                continue
        return found

    def close(self) -> None:
        self._opened.cache_clear()

    def _range(self, name: str, offset: int, size: int) -> bytes:
        try:
            file = self._opened(os.path.join(self.folder, name))
            data = os.pread(file.descriptor, size, offset)
            # One call gives all there is, except when a signal comes in between and beyond 2 GiB.
            while len(data) < size and (more := os.pread(file.descriptor, size - len(data), offset + len(data))):
                data += more
            return data
        except (FileNotFoundError, NotADirectoryError):
            raise NotThere(name) from None
        except OSError as error:
            if error.errno not in _PASSING:
                raise Unreadable(f"cannot be read ({error.strerror})") from None
            self.close()  # a stale handle stays stale
            raise Passing(str(error.strerror)) from None


class _OpenFile:
    """A descriptor that is closed when nobody holds it any more, so that no thread reads one closed under its hands."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
