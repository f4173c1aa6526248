"""An object store, or whatever else fsspec knows, by URL: `s3://bucket/shards`, `gs://`, `memory://`, …

Every read is a range request for the bytes asked for: no cache, no reading ahead. Credentials are found as fsspec finds
them (the environment, the protocol's own files, ~/.config/fsspec), never in the recipe.
"""

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from largede.errors import DataError
from largede.streams.places.patience import Passing, Patience
from largede.streams.places.place import NotThereYet, Place, Unreadable, check_name

T = TypeVar("T")

# By process and URL, for as long as the process lives. Forked processes inherit the file systems of their parent; were
# one collected there, it would wait for a loop that does not run and unregister the parent's connections.
_file_systems: dict[tuple[int, str], Any] = {}

_OURS = ("builtins", "largede")


class StorePlace(Place):
    """The folder that an fsspec URL names. Each process makes a file system of its own."""

    def __init__(self, url: str) -> None:
        super().__init__(url.rstrip("/"), Patience())

    @property
    def files(self) -> Any:
        """The fsspec file system of this process."""
        key = os.getpid(), self.address
        # Of several threads that come first, all take the one that is kept.
        return _file_systems.get(key) or _file_systems.setdefault(key, file_system(self.address))

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        for name in names:
            check_name(name)
        if len(names) == 1:
            size = self._patiently(lambda: self._sorting(lambda: self._size(names[0])), names[0])
            return {} if size is None else {names[0]: size}
        listed = self._patiently(lambda: self._sorting(self._listing), "")
        return {name: listed[name] for name in names if name in listed}

    def _range(self, name: str, offset: int, size: int) -> bytes:
        data = self._sorting(lambda: self._bytes(name, offset, size))
        if len(data) < size and offset + size <= (self._sorting(lambda: self._size(name)) or 0):
            raise Passing(f"{len(data)} bytes came of {size}")
        return data

    def _bytes(self, name: str, offset: int, size: int) -> bytes:
        # File systems without requests of their own read through a file object, which would read ahead.
        plain = {} if self.files.async_impl else {"cache_type": "none"}
        return self.files.cat_file(self._path(name), start=offset, end=offset + size, **plain)

    def _size(self, name: str) -> int | None:
        """Bytes of one file; None when it is not there."""
        try:
            self.files.invalidate_cache()
            return self.files.info(self._path(name))["size"]
        except FileNotFoundError:
            return None

    def _listing(self) -> dict[str, int]:
        """Bytes of all files of the folder by name: one request for a thousand of them."""
        try:
            self.files.invalidate_cache()
            entries = self.files.ls(self._path(""), detail=True)
        except FileNotFoundError:
            return {}
        return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in entries if entry["type"] == "file"}

    def _path(self, name: str) -> str:
        return self.files._strip_protocol(f"{self.address}/{name}")

    def _sorting(self, work: Callable[[], T]) -> T:
        """Do `work`; what libraries raise becomes what a place raises."""
        try:
            return work()
        except Exception as error:
            raise self._sorted(error) from None

    def _sorted(self, error: Exception) -> Exception:
        """What a place raises instead; the error itself when it is a defect."""
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, FileNotFoundError):
            return NotThereYet(said)
        if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
            return self._refused(said)
        if isinstance(error, OSError) and error.errno == errno.EINVAL:
            return Unreadable(f"cannot be read ({said})")  # such as a range behind the end
        # The libraries behind fsspec have errors of their own for what fails in passing; Python's own are defects.
        if isinstance(error, OSError | EOFError) or type(error).__module__.partition(".")[0] not in _OURS:
            return Passing(said)
        return error

    def _refused(self, said: str) -> DataError:
        return DataError(
            f"{self} may not be read ({said})",
            expected="an address that these credentials may read",
            mend="check the credentials where fsspec finds them: the environment or the protocol's own files",
        )


def file_system(url: str) -> Any:
    """A new fsspec file system for a URL. Raises DataError for a protocol that is unknown or not installed."""
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations

    protocol = url.partition("://")[0]
    try:
        return url_to_fs(url, skip_instance_cache=True)[0]
    except ImportError as error:
        known = known_implementations.get(protocol, {})
        package = known.get("class", protocol).partition(".")[0]
        mend = known.get("err", str(error)) if package == "fsspec" else f"pip install {package}"
        raise DataError(
            f"{url} needs a package that is not installed ({error})", expected=f"what reads {protocol}://", mend=mend
        ) from None
    except ValueError as error:
        raise DataError(
            f"{url} cannot be opened ({error})",
            expected="a folder, or a URL of a protocol that fsspec knows",
            mend="correct data.shards; file systems of fsspec: s3, gs, abfs, hf, https, sftp, …",
        ) from None
