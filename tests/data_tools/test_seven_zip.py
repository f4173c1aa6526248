"""Archives of every method: read as py7zr reads them, in little memory whatever they become, or refused."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import py7zr
import pytest

from data_tools import seven_zip
from data_tools.sources import opened
from largede.errors import DataError

ACCEPTED: dict[str, list[dict[str, Any]]] = {
    "LZMA": [{"id": py7zr.FILTER_LZMA, "preset": 1}],
    "LZMA2": [{"id": py7zr.FILTER_LZMA2, "preset": 1}],
    "LZMA2 and BCJ": [{"id": py7zr.FILTER_X86}, {"id": py7zr.FILTER_LZMA2, "preset": 1}],
    "BZip2": [{"id": py7zr.FILTER_BZIP2}],
    "Deflate": [{"id": py7zr.FILTER_DEFLATE}],
    "Copy": [{"id": py7zr.FILTER_COPY}],
}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "ZStandard": [{"id": py7zr.FILTER_ZSTD, "level": 3}],
    "Brotli": [{"id": py7zr.FILTER_BROTLI, "level": 1}],
    "PPMd": [{"id": py7zr.FILTER_PPMD, "order": 6, "mem": 24}],
    "DEFLATE64": [{"id": py7zr.compressor.FILTER_DEFLATE64}],
    "BZip2 and BCJ": [{"id": py7zr.FILTER_X86}, {"id": py7zr.FILTER_BZIP2}],
    "DELTA": [{"id": py7zr.FILTER_DELTA}, {"id": py7zr.FILTER_LZMA2, "preset": 1}],
}
MOST_MIB = 200
"""Python and what it imports here take 60 of them."""


def archive(path: Path, filters: list[dict[str, Any]], members: dict[str, bytes], **more: Any) -> Path:
    with py7zr.SevenZipFile(path, "w", filters=filters, **more) as file:
        for name, data in members.items():
            file.writestr(data, name)
    return path


def read(path: Path, member: str | None = None) -> bytes:
    with opened(path, member) as stream:
        return stream.read()


def texts() -> Iterator[bytes]:
    """Empty, short, around the sizes that are read and handed on at once, alike throughout and alike nowhere."""
    yield from (b"", b"x", b"one line\n")
    for size in (seven_zip._READ_BYTES, seven_zip._CHUNK_BYTES, 3 * seven_zip._CHUNK_BYTES):
        yield from (os.urandom(size + more) for more in (-1, 0, 1))
    draw = random.Random(0)
    yield b" ".join(draw.choices([b"tea", b"leaves", b"water"], k=200_000))
    yield bytes(2_000_000)


@pytest.mark.parametrize("method", ACCEPTED)
def test_every_member_is_what_went_in_wherever_it_lies(tmp_path: Path, method: str) -> None:
    members = {f"folder/{number}.xml": text for number, text in enumerate(texts())}
    path = archive(tmp_path / "a.7z", ACCEPTED[method], members)
    for name, text in members.items():
        assert read(path, Path(name).name) == text


def test_members_that_were_added_later_are_found(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.7z", ACCEPTED["LZMA2"], {"one": b"1" * 1000, "empty": b""})
    for name, method in (("two", "BZip2"), ("three", "Copy")):
        with py7zr.SevenZipFile(path, "a", filters=ACCEPTED[method]) as file:
            file.writestr(name.encode() * 1000, name)
    assert [read(path, name) for name in ("one", "empty", "two", "three")] == [
        b"1" * 1000,
        b"",
        b"two" * 1000,
        b"three" * 1000,
    ]


@pytest.mark.parametrize("method", REFUSED)
def test_methods_that_cannot_be_read_in_small_pieces_are_refused(tmp_path: Path, method: str) -> None:
    path = archive(tmp_path / "a.7z", REFUSED[method], {"Posts.xml": b"posts " * 1000})
    with pytest.raises(DataError, match=f"packed by .*{method}.*; read are LZMA, .*, COPY") as raised:
        read(path)
    assert raised.value.mend == "unpack it and give the file itself, plain or as .zst"


def test_encrypted_archives_are_refused(tmp_path: Path) -> None:
    filters = [*ACCEPTED["LZMA2"], {"id": py7zr.FILTER_CRYPTO_AES256_SHA256}]
    for encrypted_names in (False, True):
        path = archive(
            tmp_path / f"{encrypted_names}.7z", filters, {"a": b"b"}, password="tea", header_encryption=encrypted_names
        )
        with pytest.raises(DataError, match="it is encrypted"):
            read(path)


@pytest.mark.parametrize("method", ACCEPTED)
def test_text_that_does_not_match_its_checksum_is_damage(tmp_path: Path, method: str) -> None:
    path = archive(tmp_path / "a.7z", ACCEPTED[method], {"a": os.urandom(5000)})
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be decompressed"):
        read(path)


def test_dictionaries_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is larger than the text takes no more than the text."""
    for name, method in (("LZMA", py7zr.FILTER_LZMA), ("LZMA2", py7zr.FILTER_LZMA2)):
        path = archive(tmp_path / f"{name}.7z", [{"id": method, "dict_size": 1 << 24}], {"a": b"text " * 10_000})
        monkeypatch.setattr(seven_zip, "MOST_DICTIONARY_BYTES", 50_000)
        assert read(path) == b"text " * 10_000
        monkeypatch.setattr(seven_zip, "MOST_DICTIONARY_BYTES", 49_999)
        with pytest.raises(DataError, match="dictionary of 50,000 bytes is above 49,999"):
            read(path)


PEAK = """
import sys
from pathlib import Path
from data_tools.sources import Reading, opened, reading
try:
    with reading(Reading(max_bytes=int(sys.argv[2]) or None)), opened(Path(sys.argv[1])) as stream:
        while stream.read(1 << 16):
            pass
except Exception as error:
    print(error)
# Not ru_maxrss, which a process takes over from the one that started it.
print(int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) // 1024)
"""


def peak_mib(path: Path, max_bytes: int = 0) -> tuple[int, str]:
    """Of a process that reads the archive, and what the process says."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(path), str(max_bytes)], capture_output=True, text=True)
    *said, peak = done.stdout.splitlines()
    return int(peak), "\n".join(said)


def bomb(path: Path, filters: list[dict[str, Any]], size: int) -> Path:
    """An archive of `size` zeros."""
    hollow = path.with_suffix(".xml")
    with hollow.open("wb") as file:
        file.truncate(size)
    with py7zr.SevenZipFile(path, "w", filters=filters) as packed:
        packed.write(hollow, "Posts.xml")
    return path


@pytest.mark.parametrize("method", [*ACCEPTED, "ZStandard", "Brotli"])
def test_a_bomb_takes_little_memory(tmp_path: Path, method: str) -> None:
    path = bomb(tmp_path / "a.7z", (ACCEPTED | REFUSED)[method], 160_000_000)
    peak, said = peak_mib(path)
    assert peak < MOST_MIB, (peak, said)
    assert ("packed by" in said) == (method in REFUSED), said
    if method in ACCEPTED:
        peak, said = peak_mib(path, 1_000_000)
        assert peak < MOST_MIB // 2 and "more than 1,000,000 bytes" in said, (peak, said)


@pytest.mark.parametrize("method", [py7zr.FILTER_ZSTD, py7zr.FILTER_LZMA2])
def test_a_bomb_in_the_list_of_files_takes_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: int
) -> None:
    """Eight million letters of names, packed by the method."""
    monkeypatch.setattr("py7zr.properties.DefaultFilters.ENCODED_HEADER_FILTER", [{"id": method}])
    path = archive(tmp_path / "a.7z", ACCEPTED["LZMA2"], {f"{number:04d}{'a' * 4000}": b"" for number in range(2000)})
    peak, said = peak_mib(path)
    assert peak < MOST_MIB and ("list of files takes" in said or "packed by ZStandard" in said), (peak, said)
