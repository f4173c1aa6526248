"""Zip archives from elsewhere, unpacked so that nothing lands outside the folder and no disk is filled.

Everything that the archive says about itself is looked at before the first byte is written.
"""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NoReturn

from largede.errors import DataError, NoRoomError
from largede.files import no_room

MOST_BYTES = 1 << 37
"""128 GiB unpacked: more than the largest collection by far."""
MOST_RATIO = 100
"""Unpacked to packed. JSON lines of text come to 3 to 10, lists of numbers to 20; deflate itself ends at 1,032."""
MOST_MEMBERS = 100_000
_SMALL_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20


def unpack_zip(path: Path, into: Path, *, most_bytes: int = MOST_BYTES, most_ratio: int = MOST_RATIO) -> None:
    """Unpack all of `path` into the empty folder `into`.

    Raises DataError: no zip or a damaged one, a name that leads out of the folder (absolute, `..`, a drive letter, a
    backslash) or occurs twice, a link or special file, an encrypted member, more bytes than `most_bytes`, a ratio above
    `most_ratio`. Raises NoRoomError before anything is written when the disk is too small.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members, most_bytes, most_ratio)
            _check_room(path, members, into)
            for member in members:
                _unpack(archive, member, into)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        _refuse(path, f"cannot be read as a zip archive ({error})")
    except OSError as error:
        raise no_room(into, error) or error from None


def _check_members(path: Path, members: list[zipfile.ZipInfo], most_bytes: int, most_ratio: int) -> None:
    if len(members) > MOST_MEMBERS:
        _refuse(path, f"holds {len(members):,} members, more than {MOST_MEMBERS:,}")
    for member in members:
        reason = _name_amiss(member.filename) or _kind_amiss(member)
        if reason:
            _refuse(path, f"holds {member.filename!r}: {reason}")
    _check_distinct(path, [member.filename for member in members])
    unpacked = sum(member.file_size for member in members)
    packed = path.stat().st_size
    if unpacked > most_bytes:
        _refuse(path, f"would take {unpacked:,} bytes unpacked, more than {most_bytes:,}")
    if unpacked > _SMALL_BYTES and unpacked > most_ratio * packed:
        _refuse(path, f"would unpack {packed:,} bytes into {unpacked:,}, more than {most_ratio} times as many")


def _name_amiss(name: str) -> str:
    """Why a name is refused; "" when it may be used. What one system takes for harmless leads out on another."""
    if re.match(r"[A-Za-z]:", name) or name.startswith("/"):
        return "an absolute path"
    if "\\" in name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "a backslash or control character in the name"
    if ".." in name.split("/") or not name.strip("/"):
        return "a path outside the folder"
    return ""


def _kind_amiss(member: zipfile.ZipInfo) -> str:
    mode = member.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        return "a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a special file"
    return "encrypted" if member.flag_bits & 0x1 else ""


def _check_distinct(path: Path, names: Iterable[str]) -> None:
    """No name twice, not even on a disk that takes capitals for small letters, and no file where a folder has to be."""
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        place = PurePosixPath(name.casefold())
        folders.update(str(parent) for parent in place.parents)
        if name.endswith("/"):
            folders.add(str(place))
        elif str(place) in files:
            _refuse(path, f"holds {name!r} twice")
        else:
            files.add(str(place))
    if files & folders:
        _refuse(path, f"holds {min(files & folders)!r} as a file and as a folder")


def _check_room(path: Path, members: list[zipfile.ZipInfo], into: Path) -> None:
    needed, free = sum(member.file_size for member in members), shutil.disk_usage(into).free
    if needed > free:
        raise NoRoomError(
            f"{path.name} has {needed:,} bytes unpacked, and {into.parent} has room for {free:,}",
            expected="enough free disk space",
            mend="free some space, or name another folder with --cache or LARGEDE_CACHE",
        )


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, into: Path) -> None:
    target = into / member.filename
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # zipfile reads no more than the size that was looked at, and compares the checksum at the end.
    with archive.open(member) as packed, target.open("xb") as unpacked:
        shutil.copyfileobj(packed, unpacked, _PIECE_BYTES)


def _refuse(path: Path, reason: str) -> NoReturn:
    raise DataError(
        f"{path} {reason}",
        expected="a zip archive of plain files inside their folder",
        mend="get the archive again from where it was published",
    )
