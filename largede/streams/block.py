"""A block: some hundred pairs as one compressed member of a shard.

It is a MessagePack map from the name of a field to the values of all pairs, in one zstandard frame with checksum and
length; fields that no pair has are left out. README.md here compares it with other forms.
"""

import threading
import zlib
from collections.abc import Sequence
from itertools import repeat
from typing import Any

from largede.errors import DataError
from largede.streams.pair import Pair

SUFFIX = "msgpack.zst"
MAX_BLOCK_BYTES = 1 << 28
"""Of a block once decompressed: a hostile one cannot fill the memory."""

_LEVEL = 3
# A decompressor costs more to make than a small block to decompress, and serves one thread at a time.
_of_thread = threading.local()


class DamagedBlock(Exception):
    """The bytes of a block are not what was written; the message says how that shows."""


def encode_block(pairs: Sequence[Pair]) -> bytes:
    """The bytes of a block; the same for the same pairs. Raises DataError for more than MAX_BLOCK_BYTES of text."""
    import msgpack
    import zstandard

    columns = zip(Pair._fields, zip(*pairs, strict=True), strict=True)
    data = msgpack.packb({name: column for name, column in columns if any(v != _default(name) for v in column)})
    if len(data) > MAX_BLOCK_BYTES:
        raise DataError(
            f"a block of {len(pairs)} pairs with {len(data)} bytes of text",
            expected=f"blocks of at most {MAX_BLOCK_BYTES} bytes",
            mend="choose a smaller --block-pairs",
        )
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True).compress(data)


def decode_block(data: bytes, samples: int) -> list[Pair]:
    """The `samples` pairs of a block. Raises DamagedBlock. Texts are taken as they are; `verify` checks them."""
    import msgpack

    try:
        given = msgpack.unpackb(decompressed(data), use_list=False)
    except ValueError as error:
        raise DamagedBlock(f"is no MessagePack ({error})") from None
    columns = (_column(given, name, samples) for name in Pair._fields)
    # What `Pair._make` does, without a call into Python for each pair.
    return list(map(tuple.__new__, repeat(Pair), zip(*columns, strict=True)))


def checksum(data: bytes) -> int:
    """The CRC-32 that the index keeps of a block's compressed bytes."""
    return zlib.crc32(data)


def _default(name: str) -> Any:
    """What a pair without that field has; query and positive are never left out."""
    return Pair._field_defaults.get(name)


def _column(given: Any, name: str, samples: int) -> tuple[Any, ...]:
    if not isinstance(given, dict):
        raise DamagedBlock("is no map of columns")
    column = given.get(name)
    if column is None and name in Pair._field_defaults:
        return (_default(name),) * samples
    if not isinstance(column, tuple) or len(column) != samples:
        raise DamagedBlock(f"does not hold {samples} values of {name!r}")
    return column


def decompressed(data: bytes) -> bytes:
    """The MessagePack of a block. Raises DamagedBlock."""
    import zstandard

    try:
        # The frame says how much it holds; asked first, so that a hostile block cannot fill the memory.
        if not 0 <= zstandard.frame_content_size(data) <= MAX_BLOCK_BYTES:
            raise DamagedBlock(f"does not say its size, or holds over {MAX_BLOCK_BYTES} bytes")
        return _decompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedBlock(f"does not decompress ({error})") from None


def _decompressor() -> Any:
    import zstandard

    if not hasattr(_of_thread, "decompressor"):
        _of_thread.decompressor = zstandard.ZstdDecompressor()
    return _of_thread.decompressor
