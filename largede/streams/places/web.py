"""A folder on a web server that answers range requests.

fsspec brings the sessions (and their settings: FSSPEC_HTTP, ~/.config/fsspec); the requests are made here, because it
would take a whole shard into memory from a server that ignores ranges, and calls every failure a missing file.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from largede.errors import DataError
from largede.streams.places.patience import Passing
from largede.streams.places.place import Unreadable, check_name
from largede.streams.places.store import StorePlace

REQUESTS_AT_A_TIME = 32
"""While the sizes of all shards are asked for, one request each."""

_CONNECT_S = 30
_SILENCE_S = 60
"""Without a byte; a connection that died without a word is noticed then."""
_NOT_FOUND = (404, 410)
_PASSING_STATUS = (408, 425, 429)


class WebPlace(StorePlace):
    """The folder that an http or https address names."""

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        for name in names:
            check_name(name)
        with ThreadPoolExecutor(REQUESTS_AT_A_TIME) as pool:
            sizes = pool.map(lambda name: self._patiently(lambda: self._sorting(lambda: self._size(name)), name), names)
            return {name: size for name, size in zip(names, sizes, strict=True) if size is not None}

    def _bytes(self, name: str, offset: int, size: int) -> bytes:
        return self._asked(name, offset, size)[0]

    def _size(self, name: str) -> int | None:
        # Not a HEAD request: some servers refuse those, and this one shows whether ranges are understood.
        try:
            return self._asked(name, 0, 1)[1]
        except FileNotFoundError:
            return None

    def _asked(self, name: str, offset: int, size: int) -> tuple[bytes, int]:
        """Bytes of a file, fewer where it ends, and the length of the whole."""
        from fsspec.asyn import sync

        files = self.files
        return sync(files.loop, self._ask, files, name, offset, size)

    async def _ask(self, files: Any, name: str, offset: int, size: int) -> tuple[bytes, int]:
        import aiohttp

        session = await files.set_session()
        settings = dict(files.kwargs)
        ranged = {"Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
        settings["headers"] = {**settings.get("headers", {}), **ranged}
        settings.setdefault("timeout", aiohttp.ClientTimeout(None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S))
        async with session.get(files.encode_url(self.where(name)), **settings) as answer:
            if answer.status in _NOT_FOUND:
                raise FileNotFoundError(f"status {answer.status}")
            if answer.status != 416:
                answer.raise_for_status()
            first, whole = _extent(answer.status, answer.headers)
            if answer.status == 416:
                return b"", whole or 0
            if first != offset or whole is None or (answer.status != 206 and whole > size):
                raise self._without_ranges(name)
            return await self._at_most(answer, name, size), whole

    async def _at_most(self, answer: Any, name: str, size: int) -> bytes:
        """The body, which may hold `size` bytes; a server that sends more is not waited for."""
        data = bytearray()
        async for piece in answer.content.iter_any():
            data += piece
            if len(data) > size:
                raise self._without_ranges(name)
        return bytes(data)

    def _without_ranges(self, name: str) -> DataError:
        return DataError(
            f"{self.where(name)}: the server ignores range requests",
            expected="answers of status 206 with the bytes asked for and Content-Range with the length of the whole",
            mend="serve the shards from an object store, or from nginx, Apache or Caddy, or copy them here",
        )

    def _sorted(self, error: Exception) -> Exception:
        import aiohttp

        if not isinstance(error, aiohttp.ClientResponseError):
            return super()._sorted(error)
        said = f"status {error.status}"
        if error.status in (401, 403):
            return self._refused(said)
        if 400 <= error.status < 500 and error.status not in _PASSING_STATUS:
            return Unreadable(f"cannot be read ({said})")
        return Passing(said)


def _extent(status: int, headers: Any) -> tuple[int, int | None]:
    """First byte of the body, and bytes of the whole file, None when the answer does not say."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", headers.get("Content-Range", ""))
    if found:
        return int(found[1] or 0), int(found[2])
    length = headers.get("Content-Length")
    return 0, int(length) if status == 200 and length else None
