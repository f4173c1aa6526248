"""One member of a .7z archive as a stream.

py7zr pushes what it decompresses into a writer. Here it runs in a thread and its writer is a queue of few chunks: when
the reader is slow the thread waits, so nothing piles up in memory and nothing goes to the disk.
"""

import io
import queue
import threading
from collections.abc import Generator, Iterator
from pathlib import PurePosixPath
from typing import IO, Any

import py7zr
from py7zr.io import Py7zIO, WriterFactory

from data_tools.sources import Damaged

_CHUNKS_WAITING = 2
# Out of one read comes one chunk, which in a hostile archive grows to py7zr's own limit of 128 MB.
_READ_BYTES = 1 << 16
_PATIENCE_S = 0.1


def member_chunks(file: IO[bytes], member: str | None) -> Generator[bytes, None, None]:
    """The bytes of the only file called `member` (folders aside; None: the only file of all), checked against its CRC.

    Raises Damaged for an archive that is damaged, encrypted, of an unknown method, or has no such file.
    """
    handover = _Handover()
    thread = threading.Thread(target=_unpack, args=(file, member, handover), daemon=True)
    thread.start()
    try:
        yield from handover.chunks()
    finally:
        handover.abandon()
        thread.join()


class _Abandoned(Exception):
    """The reader has left."""


class _Handover:
    """A queue between the thread that unpacks and the reader; either may leave early."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | Exception | None] = queue.Queue(_CHUNKS_WAITING)
        self._abandoned = threading.Event()

    def put(self, item: bytes | Exception | None) -> None:
        while not self._abandoned.is_set():
            try:
                return self._queue.put(item, timeout=_PATIENCE_S)
            except queue.Full:
                continue
        raise _Abandoned

    def abandon(self) -> None:
        self._abandoned.set()

    def chunks(self) -> Iterator[bytes]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item


def _unpack(file: IO[bytes], member: str | None, handover: _Handover) -> None:
    try:
        source: Any = _ShortReads(file)
        # Given an open file py7zr unpacks in this thread alone, in order.
        with py7zr.SevenZipFile(source, "r") as archive:
            source.most_bytes = _READ_BYTES
            archive.extract(targets=[_only(archive, member)], factory=_Writers(handover))
        handover.put(None)
    except _Abandoned:
        return
    except Exception as error:
        # A hostile header makes py7zr fail in many ways; for the reader they are one.
        try:
            handover.put(Damaged(f"{type(error).__name__}: {error}"))
        except _Abandoned:
            return


def _only(archive: py7zr.SevenZipFile, member: str | None) -> str:
    files = [entry.filename for entry in archive.list() if not entry.is_directory]
    found = [name for name in files if member in (None, PurePosixPath(name).name)]
    if len(found) != 1:
        wanted = f"files called {member}" if member else "files"
        raise ValueError(f"it holds {len(found)} {wanted} instead of one")
    return str(found[0])


class _ShortReads(io.RawIOBase):
    """The archive's file; once `most_bytes` is set a read answers with no more. py7zr asks for many megabytes."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.most_bytes: int | None = None

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size if self.most_bytes is None else min(size, self.most_bytes))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class _Writers(WriterFactory):
    def __init__(self, handover: _Handover) -> None:
        self._handover = handover

    def create(self, filename: str) -> Py7zIO:
        return _Writer(self._handover)


class _Writer(Py7zIO):
    """What py7zr takes for a file. It never reads back."""

    def __init__(self, handover: _Handover) -> None:
        self._handover = handover
        self._size = 0

    def write(self, s: bytes | bytearray) -> int:
        self._handover.put(bytes(s))
        self._size += len(s)
        return len(s)

    def read(self, size: int | None = None) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        return None

    def size(self) -> int:
        return self._size
