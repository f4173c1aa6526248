"""One member of a .7z archive as a stream.

py7zr reads the header; what is packed is decompressed here, because py7zr hands some methods whatever one read of the
archive becomes, gigabytes of it in a hostile one. Accepted are the methods that can be asked for so many bytes and no
more. So memory is bounded by the dictionary, at most MOST_DICTIONARY_BYTES of which as much is taken as the archive
holds text, and a few MiB.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Protocol, cast

import py7zr
from py7zr.archiveinfo import HeaderStreamsInfo, SignatureHeader
from py7zr.compressor import SupportedMethods
from py7zr.properties import PROPERTY

from data_tools.sources import Damaged, advance

MOST_DICTIONARY_BYTES = 1 << 28
"""Of LZMA and LZMA2. A larger one is taken for hostile when there is text to fill it."""
# A header of this many bytes may name as many files, each of which takes py7zr over 500 bytes.
_MOST_HEADER_BYTES = 1 << 17
_READ_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 18
_SIGNATURE_BYTES = 32
_LEAST_DICTIONARY_BYTES = 1 << 12
_REMEDY = "unpack it and give the file itself, plain or as .zst"


def member_chunks(file: io.BufferedReader, member: str | None) -> Generator[bytes, None, None]:
    """The bytes of the only file called `member` (folders aside; None: the only file of all), checked against its CRC.

    Raises Damaged for an archive that is damaged, encrypted, of a method that is not accepted, or has no such file.
    """
    # Without the buffer, which would be filled for every place that the header sends one to.
    packed = _located(cast(io.RawIOBase, file.raw), member)
    if packed is None:
        return
    # What lies before it counts as read.
    advance(packed.start)
    crc = 0
    for chunk in packed.chunks(file):
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if packed.crc not in (None, crc):
        raise Damaged("the text does not match its checksum")


class _Decoder(Protocol):
    """As the decompressors of bz2 and lzma: `needs_input` says that nothing more comes without further input."""

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Copied:
    """What was read at once, which is little."""

    needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return data


class _Inflated:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=-15)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self.needs_input = len(found) < max_length and not self._stream.unconsumed_tail
        return found


@dataclass(frozen=True)
class _Packed:
    """Where a member lies: `start` and `size` of the packed stream, where `before` bytes of text come first."""

    start: int
    size: int
    before: int
    text_bytes: int
    crc: int | None
    new_decoder: Callable[[], _Decoder]

    def chunks(self, file: IO[bytes]) -> Generator[bytes, None, None]:
        """What the member holds, in small pieces."""
        decoder = self.new_decoder()
        file.seek(self.start)
        packed_left, skipped, left = self.size, self.before, self.text_bytes
        while left > 0:
            data = file.read(min(_READ_BYTES, packed_left)) if decoder.needs_input else b""
            packed_left -= len(data)
            waited = decoder.needs_input
            chunk = _decompressed(decoder, data, min(_CHUNK_BYTES, skipped + left))
            if waited and not data and not chunk:
                raise Damaged("the packed text ends too early")
            text = chunk[skipped:][:left]
            skipped -= min(skipped, len(chunk))
            left -= len(text)
            if text:
                yield text


def _decompressed(decoder: _Decoder, data: bytes, most: int) -> bytes:
    try:
        return decoder.decompress(data, most)
    except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise Damaged(str(error)) from None


def _located(file: io.RawIOBase, member: str | None) -> _Packed | None:
    """Where the member lies; None when it is empty."""
    try:
        _demand_small_header(file)
        file.seek(0)
        with py7zr.SevenZipFile(file, "r") as archive:
            return _packed(archive, _only(archive, member))
    except Damaged:
        raise
    except Exception as error:
        # A hostile header makes py7zr fail in many ways; for the reader they are one.
        raise Damaged(f"{type(error).__name__}: {error}") from None


def _demand_small_header(file: io.RawIOBase) -> None:
    """py7zr would take any method for a packed header, and memory for as many files as it names."""
    if not py7zr.is_7zfile(file):
        raise Damaged("it is no .7z archive")
    header = SignatureHeader.retrieve(file)
    _demand_few_files(header.nextheadersize)
    file.seek(_SIGNATURE_BYTES + header.nextheaderofs)
    start = io.BytesIO(file.read(header.nextheadersize))
    if start.read(1) == PROPERTY.ENCODED_HEADER:
        for folder in HeaderStreamsInfo.retrieve(start).unpackinfo.folders:
            _demand_bounded(folder, ("LZMA", "LZMA2", "COPY"))
            _demand_few_files(folder.unpacksizes[-1])


def _demand_few_files(header_bytes: int) -> None:
    if header_bytes > _MOST_HEADER_BYTES:
        raise Damaged(f"its list of files takes {header_bytes:,} bytes, more than {_MOST_HEADER_BYTES:,}", _REMEDY)


def _only(archive: py7zr.SevenZipFile, member: str | None) -> Any:
    files = [entry for entry in archive.files if not entry.is_directory]
    found = [entry for entry in files if member in (None, PurePosixPath(entry.filename).name)]
    if len(found) != 1:
        wanted = f"files called {member}" if member else "files"
        raise Damaged(f"it holds {len(found)} {wanted} instead of one")
    return found[0]


def _packed(archive: py7zr.SevenZipFile, wanted: Any) -> _Packed | None:
    if wanted.emptystream:
        return None
    streams = archive.header.main_streams
    assert streams is not None and streams.packinfo is not None and streams.unpackinfo is not None
    folders = streams.unpackinfo.folders
    number = next(i for i, folder in enumerate(folders) if folder is wanted.folder)
    stream = sum(len(folder.packed_indices) for folder in folders[:number])
    _demand_bounded(wanted.folder, _DECODERS)
    before = (entry.uncompressed for entry in archive.files if entry.folder is wanted.folder and entry.id < wanted.id)
    return _Packed(
        start=_SIGNATURE_BYTES + streams.packinfo.packpos + streams.packinfo.packpositions[stream],
        size=streams.packinfo.packsizes[stream],
        before=sum(before),
        text_bytes=wanted.uncompressed,
        crc=wanted.crc32,
        new_decoder=_DECODERS[_methods(wanted.folder)](
            wanted.folder.coders[0]["properties"], max(wanted.folder.unpacksizes)
        ),
    )


def _demand_bounded(folder: Any, accepted: Iterable[str]) -> None:
    """Refuse what is packed by methods that cannot be read in small pieces."""
    methods = _methods(folder)
    if methods not in accepted:
        what = "encrypted" if "7zAES" in methods else f"packed by {methods}"
        raise Damaged(f"it is {what}; read are {', '.join(_DECODERS)}", _REMEDY)


def _methods(folder: Any) -> str:
    known = ((coder["method"], SupportedMethods._find_method("id", coder["method"])) for coder in folder.coders)
    return " and ".join(str(method["name"]) if method else f"method {number.hex()}" for number, method in known)


def _lzma(properties: bytes, text_bytes: int) -> Callable[[], _Decoder]:
    rest, lc = divmod(properties[0], 9)
    pb, lp = divmod(rest, 5)
    size = _dictionary(int.from_bytes(properties[1:5], "little"), text_bytes)
    return _raw({"id": lzma.FILTER_LZMA1, "dict_size": size, "lc": lc, "lp": lp, "pb": pb})


def _lzma2(properties: bytes, text_bytes: int, *before: dict[str, Any]) -> Callable[[], _Decoder]:
    [code] = properties
    size = _dictionary((2 | code & 1) << code // 2 + 11, text_bytes)
    return _raw(*before, {"id": lzma.FILTER_LZMA2, "dict_size": size})


def _lzma2_of_code(properties: bytes, text_bytes: int) -> Callable[[], _Decoder]:
    """As py7zr packs everything unless told otherwise."""
    return _lzma2(properties, text_bytes, {"id": lzma.FILTER_X86})


def _raw(*filters: dict[str, Any]) -> Callable[[], _Decoder]:
    return lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


def _dictionary(declared: int, text_bytes: int) -> int:
    """Nothing can refer to text that is farther away than the beginning."""
    needed = max(_LEAST_DICTIONARY_BYTES, min(declared, text_bytes))
    if needed > MOST_DICTIONARY_BYTES:
        raise Damaged(f"its dictionary of {needed:,} bytes is above {MOST_DICTIONARY_BYTES:,}", _REMEDY)
    return needed


_DECODERS: dict[str, Callable[[bytes, int], Callable[[], _Decoder]]] = {
    "LZMA": _lzma,
    "LZMA2": _lzma2,
    "LZMA2 and BCJ": _lzma2_of_code,
    "BZip2": lambda properties, text_bytes: bz2.BZ2Decompressor,
    "DEFLATE": lambda properties, text_bytes: _Inflated,
    "COPY": lambda properties, text_bytes: _Copied,
}
