import bz2
import gzip
import lzma
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import py7zr
import pytest
import zstandard

from data_tools.sources import Reading, lines_of, opened, reading, watched
from largede.errors import DataError

TEXT = b"".join(b"line %d of some text that repeats itself\n" % i for i in range(20_000))

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def seven_zip(path: Path, members: dict[str, bytes]) -> Path:
    with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_LZMA2, "preset": 1}]) as archive:
        for name, data in members.items():
            archive.writestr(data, name)
    return path


def compressed(folder: Path, suffix: str, data: bytes = TEXT) -> Path:
    path = folder / f"file{suffix}"
    if suffix == ".7z":
        return seven_zip(path, {"file": data})
    path.write_bytes(COMPRESS[suffix](data))
    return path


def read(path: Path, member: str | None = None) -> bytes:
    with opened(path, member) as stream:
        return stream.read()


@pytest.mark.parametrize("suffix", [*COMPRESS, ".7z"])
def test_what_was_compressed_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = compressed(tmp_path, suffix)
    assert read(path) == TEXT
    assert b"".join(lines_of(path)) == TEXT


@pytest.mark.parametrize("suffix", COMPRESS)
def test_files_put_end_to_end_are_read_to_the_last(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(COMPRESS[suffix](b"one\n") + COMPRESS[suffix](b"") + COMPRESS[suffix](b"two\n"))
    assert read(path) == b"one\ntwo\n"


def test_zeros_after_a_gzip_or_xz_frame_are_no_damage(tmp_path: Path) -> None:
    for suffix in (".gz", ".xz"):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(COMPRESS[suffix](b"one\n") + bytes(512))
        assert read(path) == b"one\n"


@pytest.mark.parametrize("suffix", [*COMPRESS, ".7z"])
@pytest.mark.parametrize("damage", ["cut", "cut short", "flipped", "not compressed"])
def test_damage_is_one_error_that_names_the_file(tmp_path: Path, suffix: str, damage: str) -> None:
    path = compressed(tmp_path, suffix)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-15:]
    if damage == "cut short":
        del data[len(data) // 2 :]
    if damage == "flipped":
        data[len(data) // 2] ^= 0x10
    path.write_bytes(TEXT if damage == "not compressed" else bytes(data))
    with pytest.raises(DataError, match="cannot be decompressed") as raised:
        read(path)
    assert str(path) in raised.value.given


@pytest.mark.parametrize("suffix", [*COMPRESS, ".7z"])
def test_a_reader_may_leave_early(tmp_path: Path, suffix: str) -> None:
    path = compressed(tmp_path, suffix, os.urandom(1_000_000))
    threads = threading.active_count()
    with opened(path) as stream:
        stream.read(10)
    assert threading.active_count() == threads


def test_only_the_member_asked_for_is_read(tmp_path: Path) -> None:
    members = {"Badges.xml": b"badges", "site/Posts.xml": TEXT, "Votes.xml": b"votes"}
    assert read(seven_zip(tmp_path / "a.7z", members), "Posts.xml") == TEXT


@pytest.mark.parametrize(
    ("members", "wanted", "complaint"),
    [
        ({"Comments.xml": b"c"}, "Posts.xml", "holds 0 files called Posts.xml"),
        ({"a/Posts.xml": b"c", "b/Posts.xml": b"d"}, "Posts.xml", "holds 2 files called Posts.xml"),
        ({"a": b"c", "b": b"d"}, None, "holds 2 files instead of one"),
    ],
)
def test_an_archive_without_one_such_member_is_refused(
    tmp_path: Path, members: dict[str, bytes], wanted: str | None, complaint: str
) -> None:
    path = seven_zip(tmp_path / "a.7z", members)
    with pytest.raises(DataError, match=complaint):
        read(path, wanted)


@pytest.mark.parametrize("name", ["../../Posts.xml", "/etc/largede/Posts.xml", "C:\\Posts.xml", "a/../../Posts.xml"])
def test_a_member_whose_name_leads_elsewhere_writes_nothing_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Members are never written at all; whether such a name is read or refused is of no consequence."""
    inner = tmp_path / "inner" / "most"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    plain = "x" * len(name)
    seven_zip(inner / "a.7z", {plain: b"posts"})
    renamed = uncompressed_header(inner / "a.7z", plain, name)
    before = sorted(tmp_path.rglob("*"))
    try:
        assert read(renamed) == b"posts"
    except DataError as error:
        assert "cannot be decompressed" in error.given
    assert sorted(tmp_path.rglob("*")) == before and not Path("/etc/largede").exists()


def uncompressed_header(path: Path, old: str, new: str) -> Path:
    """The archive written again with a member renamed to what py7zr itself refuses to write."""
    import zlib

    with py7zr.SevenZipFile(path, "w") as archive:
        archive.set_encoded_header_mode(False)
        archive.writestr(b"posts", old)
    data = bytearray(path.read_bytes().replace(old.encode("utf-16-le"), new.encode("utf-16-le")))
    start = 32 + int.from_bytes(data[12:20], "little")
    size = int.from_bytes(data[20:28], "little")
    data[28:32] = zlib.crc32(data[start : start + size]).to_bytes(4, "little")
    data[8:12] = zlib.crc32(data[12:32]).to_bytes(4, "little")
    path.write_bytes(data)
    with py7zr.SevenZipFile(path) as archive:
        assert archive.files[0].filename == new.replace("\\", "/")
    return path


def test_a_file_that_grows_beyond_what_it_may_is_refused(tmp_path: Path) -> None:
    path = compressed(tmp_path, ".zst", bytes(1 << 20))
    with reading(Reading(max_bytes=1 << 20)):
        assert len(read(path)) == 1 << 20
    with reading(Reading(max_bytes=(1 << 20) - 1)), pytest.raises(DataError, match="holds more than 1,048,575 bytes"):
        read(path)


def test_growth_beyond_all_text_is_refused_without_being_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_tools.sources._LEAST_LIMIT_BYTES", 1 << 16)
    for suffix in (".gz", ".7z"):
        with pytest.raises(DataError, match="--max-bytes"):
            read(compressed(tmp_path, suffix, bytes(1 << 22)))


def test_bytes_read_are_told_to_the_meter(tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    (tmp_path / "plain").write_bytes(data)
    for path in (tmp_path / "plain", *(compressed(tmp_path, suffix, data) for suffix in (*COMPRESS, ".7z"))):
        counts: list[int] = []
        with reading(Reading(counts.append)):
            read(path)
        assert path.stat().st_size <= sum(counts) <= path.stat().st_size + 1_100_000


def test_the_longest_windows_are_read(tmp_path: Path) -> None:
    """As in dumps of Reddit (zstd --long=31)."""
    data = random.Random(0).randbytes(1 << 20)
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = tmp_path / "long.zst"
    path.write_bytes(compressor.compress(data) + compressor.flush())
    assert read(path) == data
    assert b"".join(lines_of(path)) == data


PEAK = """
import sys
from pathlib import Path
from data_tools.sources import Reading, opened, reading
from largede.errors import DataError
try:
    with reading(Reading(max_bytes=int(sys.argv[2]) or None)), opened(Path(sys.argv[1])) as stream:
        while stream.read(1 << 16):
            pass
except DataError as error:
    assert "holds more than" in str(error) and sys.argv[2] != "0", error
# Not ru_maxrss, which a process takes over from the one that started it.
print(int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) // 1024)
"""


def peak_mib(path: Path, max_bytes: int = 0) -> int:
    words = [sys.executable, "-c", PEAK, str(path), str(max_bytes)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("window_log", [27, 31])
def test_a_bomb_takes_little_more_memory_than_it_may_hold(tmp_path: Path, window_log: int) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = tmp_path / "bomb.zst"
    path.write_bytes(b"".join(frame.compress(bytes(1 << 20)) for _ in range(400)) + frame.flush())
    assert path.stat().st_size < 20_000
    assert peak_mib(path, 1_000_000) < 150


@pytest.mark.parametrize("suffix", [".zst", ".7z"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    half_random = b"".join(os.urandom(500) + bytes(500) for _ in range(3_000))
    peaks = []
    for times in (1, 4):
        peaks.append(peak_mib(compressed(tmp_path, suffix, half_random * times)))
    assert peaks[1] < peaks[0] + 6, peaks


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_watch_is_shown_every_byte_of_the_file_in_order(tmp_path: Path, suffix: str, whole: bool) -> None:
    path = tmp_path / f"lines{suffix}"
    text = b"".join(b"line %d\n" % number for number in range(300_000))
    path.write_bytes(gzip.compress(text) if suffix else text)
    seen = bytearray()
    with watched(seen.extend), opened(path) as stream:
        assert (stream.read() if whole else b"".join(stream)) == text
    assert seen == path.read_bytes()
