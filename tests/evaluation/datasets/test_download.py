"""One published file: gone on with, compared, kept from being half there."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from flaky_server import Flaky, flaky_server
from made_archives import HASTY, remote

from largede.errors import DataError, MachineError
from largede.evaluation.datasets import download
from largede.evaluation.datasets.download import Fetched, fetch, seen_path

DATA = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(8000))  # 256,000 bytes


@pytest.fixture
def server() -> Iterator[Flaky]:
    with flaky_server() as flaky:
        flaky.files["set.zip"] = DATA
        yield flaky


def got(server: Flaky, folder: Path, **flags: bool) -> Fetched:
    return fetch(remote(server.url("set.zip"), DATA), folder, patience=HASTY, **flags)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_comes_whole_and_is_not_asked_for_again(server: Flaky, tmp_path: Path) -> None:
    assert got(server, tmp_path).path.read_bytes() == DATA
    got(server, tmp_path)
    assert len(server.requests) == 1
    assert names(tmp_path) == ["set.zip", "set.zip.came"]


def test_broken_connections_are_gone_on_with_where_they_broke(server: Flaky, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000, 1, 0, 70_000]
    assert got(server, tmp_path).path.read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-", "bytes=150001-", "bytes=220001-"]
    assert server.sent == len(DATA)


def test_a_later_process_goes_on_where_an_earlier_one_was_killed(server: Flaky, tmp_path: Path) -> None:
    server.pause_s = 0.02  # 63 pieces: over a second
    code = f"""
from pathlib import Path
from largede.evaluation.datasets.catalogue import RemoteFile
from largede.evaluation.datasets.download import fetch
fetch(RemoteFile({server.url("set.zip")!r}, {len(DATA)}, {hashlib.md5(DATA).hexdigest()!r}), Path({str(tmp_path)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    part = tmp_path / "set.zip.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = part.stat().st_size
    assert 0 < had < len(DATA)
    server.pause_s = 0.0
    assert got(server, tmp_path).path.read_bytes() == DATA
    assert server.ranges == [None, f"bytes={had}-"]


def test_a_file_that_changed_between_two_tries_comes_anew(server: Flaky, tmp_path: Path) -> None:
    """The server compares If-Range itself; one that does not is found out by the ETag it sends.

    No checksum is known here that would find the mixture.
    """
    for ignores in (False, True):
        folder, file = tmp_path / str(ignores), remote(server.url("set.zip"))
        cut_off(server, folder, b"x" * len(DATA), '"old"')
        server.files["set.zip"], server.etag, server.ignore_if_range = DATA, '"new"', ignores
        assert fetch(file, folder, patience=HASTY).path.read_bytes() == DATA
        assert server.ranges == (["bytes=100000-", None] if ignores else ["bytes=100000-"])


def test_a_server_that_answers_with_other_bytes_than_asked_for_is_not_believed(server: Flaky, tmp_path: Path) -> None:
    cut_off(server, tmp_path, DATA, '"one"')
    server.wrong_start = True
    assert fetch(remote(server.url("set.zip")), tmp_path, patience=HASTY).path.read_bytes() == DATA


def test_a_changed_file_without_any_sign_of_it_is_found_by_its_checksum_and_comes_anew(
    server: Flaky, tmp_path: Path
) -> None:
    server.files["set.zip"], server.cuts, server.statuses = b"x" * len(DATA), [100_000], [200, 404]
    with pytest.raises(DataError):
        got(server, tmp_path)
    server.files["set.zip"] = DATA
    assert got(server, tmp_path).path.read_bytes() == DATA
    assert server.ranges[-2:] == ["bytes=100000-", None]


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(server: Flaky, tmp_path: Path) -> None:
    server.ignore_ranges, server.cuts = True, [100_000]
    assert got(server, tmp_path).path.read_bytes() == DATA


def test_a_date_serves_where_there_is_no_strong_etag(server: Flaky, tmp_path: Path) -> None:
    server.etag, server.last_modified, server.cuts = 'W/"weak"', "Sat, 21 Nov 2026 10:00:00 GMT", [100_000]
    got(server, tmp_path)
    assert server.ranges == [None, "bytes=100000-"]


def test_without_any_validator_nothing_is_gone_on_with(server: Flaky, tmp_path: Path) -> None:
    server.etag, server.cuts = None, [100_000]
    assert got(server, tmp_path).path.read_bytes() == DATA
    assert server.ranges == [None, None]


def test_a_body_without_a_length_is_judged_by_its_checksum(server: Flaky, tmp_path: Path) -> None:
    server.with_length = False
    assert got(server, tmp_path).path.read_bytes() == DATA
    server.cuts = [1000]
    with pytest.raises(DataError, match=r"\(1,000 bytes\)"):
        got(server, tmp_path / "cut")


@pytest.mark.parametrize("status", [500, 503, 429, 0])
def test_passing_failures_are_tried_again(server: Flaky, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    assert got(server, tmp_path).path.read_bytes() == DATA


def test_a_server_that_keeps_failing_ends_in_one_message_and_the_bytes_stay(server: Flaky, tmp_path: Path) -> None:
    server.cuts, server.statuses = [100_000], [200, *[503] * 20]
    with pytest.raises(MachineError, match=r"status 503; 100,000 bytes are kept") as error:
        got(server, tmp_path)
    assert str(tmp_path / "set.zip") in str(error.value)
    assert len(server.requests) == 1 + len(HASTY.pauses) + 1
    server.statuses = []
    assert got(server, tmp_path).path.read_bytes() == DATA
    assert server.ranges[-1] == "bytes=100000-"


def test_a_connection_that_falls_silent_is_given_up(server: Flaky, tmp_path: Path) -> None:
    server.pause_s = 1.0
    with pytest.raises(MachineError, match="timed out"):
        fetch(remote(server.url("set.zip"), DATA), tmp_path, patience=replace(HASTY, silence=0.1))
    assert len(server.requests) == 1 + len(HASTY.unreached_pauses)


def test_a_missing_file_is_said_at_once(server: Flaky, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"other\.zip answers with status 404"):
        fetch(remote(server.url("other.zip"), DATA), tmp_path, patience=HASTY)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_no_network_is_one_message_with_the_place_for_the_file(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot reach 127.0.0.1:9") as error:
        fetch(remote("http://127.0.0.1:9/set.zip", DATA), tmp_path, patience=HASTY)
    assert str(tmp_path / "set.zip") in error.value.mend


def test_a_wrong_checksum_leaves_nothing_and_says_both(server: Flaky, tmp_path: Path) -> None:
    wrong = b"y" * len(DATA)
    server.files["set.zip"] = wrong
    with pytest.raises(DataError) as error:
        got(server, tmp_path)
    assert hashlib.md5(wrong).hexdigest() in error.value.given
    assert hashlib.md5(DATA).hexdigest() in error.value.expected
    assert names(tmp_path) == []


def test_another_length_than_the_published_one_is_refused_before_the_body(server: Flaky, tmp_path: Path) -> None:
    server.files["set.zip"] = b"<html>moved</html>"
    with pytest.raises(DataError, match="has 18 bytes"):
        got(server, tmp_path)
    assert names(tmp_path) == []


def test_a_file_that_was_put_there_is_compared_and_stays(server: Flaky, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(DATA)
    got(server, tmp_path, offline=True).discard()
    (tmp_path / "set.zip").write_bytes(DATA[:-1])
    with pytest.raises(DataError, match="has the MD5"):
        got(server, tmp_path)
    assert names(tmp_path) == ["set.zip"]
    assert server.requests == []


def test_offline_names_the_file_its_checksum_and_its_place(server: Flaky, tmp_path: Path) -> None:
    with pytest.raises(MachineError) as error:
        got(server, tmp_path, offline=True)
    assert str(tmp_path / "set.zip") in error.value.expected
    assert hashlib.md5(DATA).hexdigest() in error.value.expected
    assert server.url("set.zip") in error.value.mend
    assert server.requests == []


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_environment_says_offline(monkeypatch: pytest.MonkeyPatch, value: str, offline: bool) -> None:
    monkeypatch.setenv("LARGEDE_OFFLINE", value)
    assert download.is_offline() is offline
    assert download.is_offline(asked=True)


def test_without_a_published_checksum_the_first_bytes_are_remembered(
    server: Flaky, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = remote(server.url("set.zip"))
    found = fetch(file, tmp_path, patience=HASTY)
    assert found.md5 is None
    assert found.sha256 == hashlib.sha256(DATA).hexdigest()
    assert "unverified" in capsys.readouterr().err
    assert json.loads(seen_path(found.path).read_text())["sha256"] == found.sha256
    found.discard()
    server.files["set.zip"] = DATA[::-1]
    server.etag = '"two"'
    with pytest.raises(DataError, match="has the SHA-256") as error:
        fetch(file, tmp_path, patience=HASTY)
    assert str(found.sha256) in error.value.expected
    assert names(tmp_path) == ["set.zip.seen.json"]


def test_a_process_that_was_ended_before_the_check_needs_no_byte_more(server: Flaky, tmp_path: Path) -> None:
    server.cuts = [100_000]
    server.statuses = [200, 404]
    with pytest.raises(DataError):
        got(server, tmp_path)
    (tmp_path / "set.zip.part").write_bytes(DATA)
    before = len(server.requests)
    assert got(server, tmp_path).path.read_bytes() == DATA
    assert len(server.requests) == before


def test_a_damaged_note_beside_the_part_is_no_obstacle(server: Flaky, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(b"junk")
    (tmp_path / "set.zip.part.json").write_text("{")
    assert got(server, tmp_path).path.read_bytes() == DATA


def test_a_disk_without_room_is_said_before_the_body(
    server: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(MachineError, match="has 256,000 bytes, and .* has room for 1,000"):
        got(server, tmp_path)
    assert names(tmp_path) == []


def test_proxies_of_the_environment_are_used(server: Flaky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(DataError, match="status 404"):
        fetch(remote("http://nowhere.invalid/set.zip", DATA), tmp_path, patience=HASTY)
    assert server.requests == [("http://nowhere.invalid/set.zip", None)]


def cut_off(server: Flaky, folder: Path, data: bytes, etag: str) -> None:
    """Leave the first 100,000 bytes of a download, and forget the requests."""
    server.files["set.zip"], server.etag, server.cuts, server.statuses = data, etag, [100_000], [200, 404]
    with pytest.raises(DataError, match="status 404"):
        fetch(remote(server.url("set.zip")), folder, patience=HASTY)
    assert (folder / "set.zip.part").read_bytes() == data[:100_000]
    server.requests.clear()


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
