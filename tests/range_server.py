"""A web server for tests: a folder with range requests, everything asked for counted, and faults on demand."""

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SHARDS = re.compile(r".*\.tar")


@dataclass
class Faults:
    """What goes wrong, with shards alone; every field at its default: nothing."""

    fail_every: int = 0
    fail_with: int = 503  # 0: the connection is dropped
    fail_first: int = 0
    delay_s: float = 0.0
    cut_answers: bool = False
    short_answers: bool = False
    ignore_ranges: bool = False
    missing: set[str] = field(default_factory=set)


@dataclass
class Served:
    """One server, and the requests it answered with bytes: (name, first byte, bytes)."""

    address: str
    folder: Path
    faults: Faults = field(default_factory=Faults)
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    asked: int = 0

    def begin_anew(self, folder: Path) -> str:
        """Serve `folder` without faults and forget what was counted; gives the address."""
        self.folder, self.faults, self.requests, self.asked = folder, Faults(), [], 0
        return self.address

    def shard_requests(self) -> list[tuple[str, int, int]]:
        """Reads of blocks; not of the index, and not the questions for the lengths of shards."""
        return [request for request in self.requests if SHARDS.fullmatch(request[0]) and request[2] > 1]


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    server = _Server(("127.0.0.1", 0), _Handler)
    served = Served(f"http://127.0.0.1:{server.server_port}", folder)
    server.served = served
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    served: Served

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader that left amid an answer, which is what these tests are about, is not worth a traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        served: Served = self.server.served  # type: ignore[attr-defined]
        name = self.path.lstrip("/")
        faults = served.faults if SHARDS.fullmatch(name) else Faults()
        if self._fails(served, faults):
            return
        path = served.folder / name
        if name in faults.missing or not path.is_file():
            self._answer(404, b"no such file")
            return
        self._send(served, faults, name, path.read_bytes())

    def _fails(self, served: Served, faults: Faults) -> bool:
        if not SHARDS.fullmatch(self.path.lstrip("/")):
            return False
        served.asked += 1
        time.sleep(faults.delay_s)
        if not (served.asked <= faults.fail_first or (faults.fail_every and served.asked % faults.fail_every == 0)):
            return False
        if faults.fail_with:
            self._answer(faults.fail_with, b"not now")
        self.close_connection = True
        return True

    def _send(self, served: Served, faults: Faults, name: str, data: bytes) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is None or faults.ignore_ranges:
            self._answer(200, data)
            return
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        if first >= len(data):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        body = data[first : last + 1]
        served.requests.append((name, first, len(body)))
        if faults.short_answers:
            body = body[: len(body) // 2]
        self._answer(206, body, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}, cut=faults.cut_answers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return
