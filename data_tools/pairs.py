"""Pairs out of JSON-lines files, plain, .gz or .zst, read as a stream and checked line by line."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from largede.errors import DataError
from largede.streams.pair import Pair

# Longer than any text worth embedding; without a limit one line of a hostile archive could fill the memory.
MAX_LINE_BYTES = 1 << 24
_READ_BYTES = 1 << 20
# A hostile frame grows 32,000 times at most: this much input becomes 128 MiB.
_ZSTD_READ_BYTES = 1 << 12


class PairReader:
    """Iterates over the pairs of `paths` in order. `skipped` counts the bad lines passed over, at most `skip_bad`.

    Raises DataError, naming file and line: for a missing, truncated or damaged file at once, for a line that is no pair
    when more than `skip_bad` of them were met. Blank lines are no lines.
    """

    def __init__(self, paths: list[Path], skip_bad: int = 0) -> None:
        self._paths = paths
        self._skip_bad = skip_bad
        self.skipped = 0

    def __iter__(self) -> Iterator[Pair]:
        for path in self._paths:
            for number, line in enumerate(lines_of(path), start=1):
                if line.isspace():
                    continue
                try:
                    yield parse_pair(line, f"{path} line {number}")
                except DataError:
                    if self.skipped == self._skip_bad:
                        raise
                    self.skipped += 1


def parse_pair(line: bytes, where: str) -> Pair:
    """The pair on one line. Raises DataError that starts with `where`."""
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not UTF-8: {error.reason} at byte {error.start}",
            expected="text encoded as UTF-8",
            mend="convert the file (iconv -t utf-8), or pass over such lines with --skip-bad",
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} is not JSON: {error}",
            expected='one JSON object per line, such as {"query": "...", "positive": "..."}',
            mend="correct or remove that line, or pass over bad lines with --skip-bad",
        ) from None
    return Pair.from_dict(record, where)


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, decompressed by suffix. Raises DataError for a missing, truncated or damaged one."""
    number = 0
    try:
        with _opened(path) as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise _unreadable(path, number, f"is longer than {MAX_LINE_BYTES} bytes", "split or remove it")
                yield line
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", expected="a JSON-lines file", mend="correct the path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder", expected="a JSON-lines file", mend="name the files in it") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _unreadable(path, number + 1, f"cannot be decompressed: {error}", "fetch the file again") from None


def _unreadable(path: Path, number: int, what: str, mend: str) -> DataError:
    return DataError(f"{path} line {number} {what}", expected="a whole JSON-lines file, plain, .gz or .zst", mend=mend)


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path), _READ_BYTES)
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstdFrames(path), _READ_BYTES)
    return path.open("rb", buffering=_READ_BYTES)


class _ZstdFrames(io.RawIOBase):
    """A .zst file, frame after frame. zstandard's own reader ends quietly in the middle of a truncated frame."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._file = path.open("rb")
        self._zstd_error = zstandard.ZstdError
        # More than zstd's own default would refuse files made with --long, less would refuse --ultra.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._ready = b""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        while not self._ready and self._decompress_more():
            pass
        part, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def _decompress_more(self) -> bool:
        """Move on by one read; false at the end of the file."""
        data = self._file.read(_ZSTD_READ_BYTES)
        if not data:
            if self._frame is not None:
                raise EOFError("the file ends in the middle of a frame")
            return False
        while data:
            data = self._feed(data)
        return True

    def _feed(self, data: bytes) -> bytes:
        """Decompress `data` up to the end of the current frame; returns what lies behind it."""
        self._frame = self._frame or self._decompressor.decompressobj()
        try:
            self._ready += self._frame.decompress(data)
        except self._zstd_error as error:
            raise EOFError(str(error)) from None
        if not self._frame.eof:
            return b""
        rest = self._frame.unused_data
        self._frame = None
        return rest
