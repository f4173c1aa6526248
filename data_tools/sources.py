"""Bytes out of files as they are published: plain, .gz, .bz2, .xz, .zst and .7z, always as a stream.

Nothing is ever extracted onto the disk and no name found in an archive is used as a path. Memory is bounded whatever a
file holds: small reads bound what one decompression can grow to, lines are limited, and so is the text that a frame may
refer back to: 2 GiB for .zst, of which as much is taken as the frame asks for and holds, 256 MiB for .xz and .7z. What
a file may hold in all is limited by `reading` or, without it, by its size.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from largede.errors import DataError

# Longer than any text worth embedding; without a limit one line of a hostile archive could fill the memory.
MAX_LINE_BYTES = 1 << 24
MOST_WINDOW_BYTES = 1 << 31
"""Of a zstandard frame, and the most there is: what `zstd --long=31` asks for, and with it the dumps of Reddit."""

MOST_GROWTH = 200
"""Text in dumps becomes 4 to 20 times smaller. A file that grows further is taken for hostile unless --max-bytes says
otherwise."""
_LEAST_LIMIT_BYTES = 1 << 30

_READ_BYTES = 1 << 20
# The most hostile frame grows 32,000 times: this much input becomes 32 MiB.
_COMPRESSED_READ_BYTES = 1 << 10
_XZ_MEMORY_BYTES = 1 << 28

COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".7z"})


class Damaged(Exception):
    """A compressed file is truncated, damaged, or no such file at all."""

    def __init__(self, what: str, mend: str = "fetch the file again") -> None:
        super().__init__(what)
        self.mend = mend


@dataclass(frozen=True)
class Reading:
    """`meter` is told how many bytes were read from disk, `watch` is handed them; `max_bytes` bounds the text of one
    compressed file."""

    meter: Callable[[int], None] = lambda count: None
    max_bytes: int | None = None
    watch: Callable[[memoryview], None] = lambda data: None


_READING: ContextVar[Reading | None] = ContextVar("_READING", default=None)


@contextmanager
def reading(rules: Reading) -> Iterator[None]:
    """Files opened in this block follow `rules`."""
    token = _READING.set(rules)
    try:
        yield
    finally:
        _READING.reset(token)


@contextmanager
def watched(watch: Callable[[memoryview], None]) -> Iterator[None]:
    """Files read in this block hand `watch` their bytes, in order, before they are decompressed."""
    with reading(replace(_rules(), watch=watch)):
        yield


def advance(count: int) -> None:
    """Tell the meter of work that is not read through this module."""
    _rules().meter(count)


def _rules() -> Reading:
    return _READING.get() or Reading()


@contextmanager
def opened(path: Path, member: str | None = None) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed by suffix. `member` is the name of the file wanted from a .7z, without folders.

    Raises DataError that names the file and, where one is damaged, the place: also while the stream is read.
    """
    with _file_at(path) as file:
        chunks = _chunks(path, file, member)
        # A plain file keeps its own buffer; there is nothing to watch over.
        stream: IO[bytes] = file if chunks is None else io.BufferedReader(_ChunkStream(path, chunks), _READ_BYTES)
        try:
            with closing(stream):
                yield stream
        except Damaged as damage:
            place = f" at byte {file.tell():,}" if path.suffix != ".7z" else ""
            raise unreadable(path, f"cannot be decompressed{place}: {damage}", damage.mend) from None


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file. Raises DataError, naming the line, for a missing, truncated or damaged one."""
    number = 0
    with opened(path) as stream:
        try:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise unreadable(path, f"line {number} is longer than {MAX_LINE_BYTES} bytes", "split or remove it")
                yield line
        except Damaged as damage:
            what = f"line {number + 1} cannot be decompressed: {damage}"
            raise unreadable(path, what, damage.mend) from None


def unreadable(path: Path, what: str, mend: str = "fetch the file again") -> DataError:
    kinds = ", ".join(sorted(COMPRESSED))
    return DataError(f"{path} {what}", expected=f"a whole file, plain or {kinds}", mend=mend)


def _file_at(path: Path) -> io.BufferedReader:
    try:
        return io.BufferedReader(_MeteredFile(path, _rules()), _READ_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", expected="a readable file", mend="correct the path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder", expected="a file", mend="name the files in it") from None


class _MeteredFile(io.FileIO):
    """Tells the meter what is read, and shows it to the watch."""

    def __init__(self, path: Path, rules: Reading) -> None:
        super().__init__(path)
        self._rules = rules

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self._rules.meter(count or 0)
        self._rules.watch(memoryview(buffer)[: count or 0])
        return count

    def readall(self) -> bytes:
        data = super().readall()
        self._rules.meter(len(data))
        self._rules.watch(memoryview(data))
        return data


class _ChunkStream(io.RawIOBase):
    """The chunks of a generator as a stream, as many bytes as the file may hold."""

    def __init__(self, path: Path, chunks: Generator[bytes, None, None]) -> None:
        self._path = path
        self._chunks = chunks
        self._ready = memoryview(b"")
        self._limit = _rules().max_bytes or max(_LEAST_LIMIT_BYTES, MOST_GROWTH * path.stat().st_size)
        self._left = self._limit

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._chunks.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._ready = memoryview(chunk)
            self._left -= len(chunk)
            if self._left < 0:
                raise self._too_large()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _too_large(self) -> DataError:
        return DataError(
            f"{self._path} holds more than {self._limit:,} bytes when decompressed",
            expected=f"a compressed file that grows at most {MOST_GROWTH} times, or what --max-bytes allows",
            mend="look at what it holds; if it is to be trusted, allow more with --max-bytes",
        )


def _chunks(path: Path, file: io.BufferedReader, member: str | None) -> Generator[bytes, None, None] | None:
    """What the file holds, decompressed piece by piece; None when it is not compressed."""
    if path.suffix == ".7z":
        from data_tools.seven_zip import member_chunks

        return member_chunks(file, member)
    if path.suffix == ".gz":
        return _frames(file, lambda: zlib.decompressobj(wbits=31), padded=True)
    if path.suffix == ".bz2":
        return _frames(file, bz2.BZ2Decompressor)
    if path.suffix == ".xz":
        return _frames(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES), padded=True)
    if path.suffix == ".zst":
        import zstandard

        # zstandard's own reader ends quietly in the middle of a truncated frame; its objects do not.
        return _frames(file, zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES).decompressobj)
    return None


def _frames(file: IO[bytes], new_frame: Callable[[], Any], padded: bool = False) -> Generator[bytes, None, None]:
    """Frame after frame until the end of the file, which may not lie within one. `padded`: zeros may follow a frame."""
    frame = None
    while data := file.read(_COMPRESSED_READ_BYTES):
        while data:
            if frame is None:
                data = data.lstrip(b"\0") if padded else data
                if not data:
                    break
                frame = new_frame()
            yield _decompress(frame, data)
            data = b""
            if frame.eof:
                data, frame = frame.unused_data, None
    if frame is not None:
        raise Damaged("the file ends too early")


def _decompress(frame: Any, data: bytes) -> bytes:
    import zstandard

    try:
        decompressed: bytes = frame.decompress(data)
    except (zlib.error, lzma.LZMAError, OSError, ValueError, zstandard.ZstdError) as error:
        raise Damaged(str(error)) from None
    return decompressed
