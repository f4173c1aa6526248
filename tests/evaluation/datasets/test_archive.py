"""Archives from elsewhere: nothing outside the folder, nothing but files, no bombs."""

import io
import os
import shutil
import stat
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_archives import beir_files, zipped

from largede.errors import DataError, NoRoomError
from largede.evaluation.datasets.archive import unpack_zip


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "inside" / "into"
    folder.mkdir(parents=True)
    return folder


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "set.zip"
    path.write_bytes(data)
    return path


def with_member(name: str, mode: int = 0, data: bytes = b"evil", flags: int = 0) -> bytes:
    """A zip with one honest member and one whose name, mode and flags are as given, whatever zipfile thinks of them."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("honest.txt", b"honest")
        member = zipfile.ZipInfo("placeholder")
        member.filename = name
        member.external_attr = mode << 16
        archive.writestr(member, data)
    content = bytearray(packed.getvalue())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.rfind(signature)
        content[at + offset] |= flags
    return bytes(content)


def assert_refused(tmp_path: Path, into: Path, data: bytes, said: str, **limits: int) -> None:
    path = write(tmp_path, data)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=said):
        unpack_zip(path, into, **limits)
    assert sorted(tmp_path.rglob("*")) == before, "something was written"


def test_an_honest_archive_is_unpacked_as_it_is(tmp_path: Path, into: Path) -> None:
    files = beir_files("nfcorpus/")
    unpack_zip(write(tmp_path, zipped({"nfcorpus/": b""} | files)), into)
    assert {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()} == files


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil", "outside the folder"),
        ("a/../../evil", "outside the folder"),
        ("a/..", "outside the folder"),
        ("/tmp/evil", "absolute"),
        ("//host/evil", "absolute"),
        ("C:/evil", "absolute"),
        ("c:evil", "absolute"),
        ("..\\evil", "backslash"),
        ("a\\b", "backslash"),
        ("new\nline", "control character"),
        ("honest.txt", "twice"),
        ("Honest.TXT", "twice"),
        ("honest.txt/below", "as a file and as a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_lead_out_or_collide_are_refused(tmp_path: Path, into: Path, name: str, said: str) -> None:
    assert_refused(tmp_path, into, with_member(name), said)


@pytest.mark.parametrize(
    ("kind", "said"), [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "special"), (stat.S_IFCHR, "special")]
)
def test_links_and_special_files_are_refused(tmp_path: Path, into: Path, kind: int, said: str) -> None:
    assert_refused(tmp_path, into, with_member("member", kind | 0o777, b"/etc/passwd"), said)


def test_encrypted_members_are_refused(tmp_path: Path, into: Path) -> None:
    assert_refused(tmp_path, into, with_member("secret", flags=1), "encrypted")


def test_bombs_are_refused_before_a_byte_is_written(tmp_path: Path, into: Path) -> None:
    bomb = zipped({"zeros": b"\0" * 30_000_000})
    assert_refused(tmp_path, into, bomb, "more than 100 times as many")
    assert_refused(tmp_path, into, zipped({"a": os.urandom(3000)}), "more than 2,000", most_bytes=2000)


def test_a_member_that_lies_about_its_size_is_cut_short_and_refused(tmp_path: Path, into: Path) -> None:
    data = bytearray(zipped({"liar": b"\0" * 5_000_000}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.rfind(signature)
        data[at + offset : at + offset + 4] = struct.pack("<I", 1000)
    with pytest.raises(DataError, match="cannot be read as a zip archive"):
        unpack_zip(write(tmp_path, bytes(data)), into)
    assert sum(path.stat().st_size for path in into.rglob("*")) <= 1000


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_damaged_archives_are_refused(tmp_path: Path, into: Path, cut: int) -> None:
    with pytest.raises(DataError, match="cannot be read as a zip archive"):
        unpack_zip(write(tmp_path, zipped(beir_files())[:cut]), into)


def test_a_flipped_byte_is_found_by_the_archives_own_checksum(tmp_path: Path, into: Path) -> None:
    data = bytearray(zipped({"corpus.jsonl": os.urandom(10_000)}))
    data[5000] ^= 1
    with pytest.raises(DataError, match="cannot be read as a zip archive"):
        unpack_zip(write(tmp_path, bytes(data)), into)


def test_a_disk_without_room_is_said_before_a_byte_is_written(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(NoRoomError, match="has room for 10"):
        unpack_zip(write(tmp_path, zipped(beir_files())), into)
    assert list(into.iterdir()) == []
