"""A web server for downloads: ranges and validators as real ones have them, and the ways in which they fail."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Flaky:
    """What is served, and what goes wrong. `cuts` and `statuses` are used up, one for each request."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    last_modified: str | None = None
    ignore_ranges: bool = False
    ignore_if_range: bool = False
    wrong_start: bool = False  # a range is answered with the whole file, and says so
    cuts: list[int] = field(default_factory=list)  # bytes of the body, then the connection is closed
    statuses: list[int] = field(default_factory=list)  # instead of the file; 0: closed without a word
    with_length: bool = True
    pause_s: float = 0.0  # before each 4 KiB
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # name and Range
    sent: int = 0

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


@contextmanager
def flaky_server() -> Iterator[Flaky]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    flaky = Flaky(f"http://127.0.0.1:{server.server_port}")
    server.flaky = flaky  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield flaky
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        flaky: Flaky = self.server.flaky  # type: ignore[attr-defined]
        name = self.path.lstrip("/")
        flaky.requests.append((name, self.headers.get("Range")))
        self.close_connection = True
        status = flaky.statuses.pop(0) if flaky.statuses else 200
        if status == 0:
            return
        if status != 200 or name not in flaky.files:
            self._send(flaky, status if status != 200 else 404, b"not this", {})
            return
        self._file(flaky, flaky.files[name])

    def _file(self, flaky: Flaky, data: bytes) -> None:
        headers = {
            key: value for key, value in {"ETag": flaky.etag, "Last-Modified": flaky.last_modified}.items() if value
        }
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        # Without If-Range a range is answered from whatever there is now, as RFC 9110 says.
        condition = self.headers.get("If-Range")
        same = flaky.ignore_if_range or condition is None or condition in (flaky.etag, flaky.last_modified)
        if found is None or flaky.ignore_ranges or not same:
            self._send(flaky, 200, data, headers)
        elif int(found[1]) >= len(data):
            self._send(flaky, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
        else:
            first = 0 if flaky.wrong_start else int(found[1])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self._send(flaky, 206, data[first:], headers)

    def _send(self, flaky: Flaky, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        if flaky.with_length:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        body = body[: flaky.cuts.pop(0)] if flaky.cuts and status in (200, 206) else body
        try:
            for start in range(0, len(body), 4096):
                time.sleep(flaky.pause_s)
                self.wfile.write(body[start : start + 4096])
                flaky.sent += len(body[start : start + 4096])
        except ConnectionError:
            return  # the reader was killed, as some tests want

    def log_message(self, format: str, *args: object) -> None:
        return
