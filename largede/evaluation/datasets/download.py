"""One published file, fetched whole or not at all, and gone on with where it was cut.

What has come lies beside the file as `NAME.part`, with what the server said about it in `NAME.part.json`. A later
attempt, or a later process, asks for the rest with If-Range, so that a file that has changed meanwhile comes anew. The
name itself is given only to bytes whose checksum is right. Proxies are taken from the environment, as urllib does.
"""

import contextlib
import hashlib
import http.client
import os
import random
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from largede import __version__
from largede.errors import DataError, MachineError, NoRoomError
from largede.evaluation.datasets.catalogue import RemoteFile
from largede.files import no_room, read_json_object, sha256_file, write_json
from largede.retrieval.progress import Progress

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Between attempts that brought no further byte; a minute in all, in which a server has restarted."""
UNREACHED_PAUSES_S = PAUSES_S[:2]
"""While not one byte has come: most likely the network is away, and waiting does not help."""
SILENCE_S = 60.0
"""Without a byte; a connection that died without a word is noticed then."""
PIECE_BYTES = 1 << 18
_MIB = 1 << 20
_PASSING_STATUS = (408, 425, 429)


@dataclass(frozen=True)
class Patience:
    """How long to wait for whom, in seconds."""

    pauses: tuple[float, ...] = PAUSES_S
    unreached_pauses: tuple[float, ...] = UNREACHED_PAUSES_S
    silence: float = SILENCE_S


PATIENCE = Patience()


@dataclass(frozen=True)
class Fetched:
    """A file that is here, and its checksum: an MD5 that was published, or the SHA-256 of what came at first."""

    path: Path
    md5: str | None
    sha256: str | None

    def discard(self) -> None:
        """Remove the file, which is used up; one that somebody else put here stays."""
        if _came(self.path).exists():
            self.path.unlink()
            _came(self.path).unlink()

    def as_json(self) -> dict[str, str | bool | None]:
        return {"file": self.path.name, "md5": self.md5, "sha256": self.sha256, "verified": self.md5 is not None}


class _Passing(Exception):
    """May be over at the next attempt."""


class _DoesNotFit(Exception):
    """The bytes that came have another checksum; `told` is what to say about it."""

    def __init__(self, told: DataError) -> None:
        self.told = told
        super().__init__(str(told))


class _Changed(Exception):
    """The server's file is no longer the one that the bytes here are of."""


def is_offline(asked: bool = False) -> bool:
    """Whether nothing may be fetched: asked for, or LARGEDE_OFFLINE is set to anything but 0."""
    return asked or os.environ.get("LARGEDE_OFFLINE", "0") not in ("", "0")


def fetch(file: RemoteFile, folder: Path, *, offline: bool = False, patience: Patience = PATIENCE) -> Fetched:
    """The file in `folder`, downloaded if it is not there, its checksum compared either way.

    One process at a time may do this to a file. Raises DataError for a wrong checksum or a file that the server does
    not have, MachineError when the network is away or `offline`, NoRoomError when the disk is too small.
    """
    path = folder / file.name
    if path.is_file():
        return _checked(file, path, path)
    if offline:
        raise MachineError(
            f"{file.name} is not here, and nothing may be fetched (--offline or LARGEDE_OFFLINE)",
            expected=f"the file {path}{f' with MD5 {file.md5}' if file.md5 else ''}",
            mend=f"get {file.address} where there is a network and put it there",
        )
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    had = _size(part)
    try:
        return _downloaded(file, part, path, patience)
    except _DoesNotFit as error:
        if not had:
            raise error.told from None
    # Bytes of an earlier process may be of another file of the same length: once more, from the beginning.
    print(f"{file.name}: what was left of an earlier download does not fit; it comes anew", file=sys.stderr)
    try:
        return _downloaded(file, part, path, patience)
    except _DoesNotFit as error:
        raise error.told from None


def seen_path(path: Path) -> Path:
    """Where the SHA-256 of a file without a published checksum is kept."""
    return path.with_name(f"{path.name}.seen.json")


def _downloaded(file: RemoteFile, part: Path, path: Path, patience: Patience) -> Fetched:
    """All bytes, compared and under their name. Raises _DoesNotFit, and then nothing of them is left."""
    _whole(file, part, patience)
    try:
        found = _checked(file, part, path)
    except DataError as error:
        _forget(part)
        raise _DoesNotFit(error) from None
    _came(path).touch()
    os.replace(part, path)
    _forget(part)
    return found


def _came(path: Path) -> Path:
    """Beside a file that was downloaded: it may go when it is unpacked."""
    return path.with_name(f"{path.name}.came")


def _checked(file: RemoteFile, here: Path, path: Path) -> Fetched:
    """`here` holds the bytes that have, or will have, the name `path`."""
    if file.md5 is not None:
        with here.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != file.md5:
            raise DataError(
                f"{path} has the MD5 {found} ({_size(here):,} bytes)",
                expected=f"{file.md5}{f' ({file.size:,} bytes)' if file.size else ''}, as published for {file.address}",
                mend="nothing of it was kept; try again later" if here != path else "remove that file and try again",
            )
        return Fetched(path, file.md5, None)
    return _compared_with_seen(file, here, path)


def _compared_with_seen(file: RemoteFile, here: Path, path: Path) -> Fetched:
    record, found = seen_path(path), sha256_file(here)
    if not record.exists():
        print(f"{file.name}: nobody publishes a checksum; unverified, SHA-256 {found}", file=sys.stderr)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(record, {"address": file.address, "sha256": found, "bytes": _size(here), "seen": when})
        return Fetched(path, None, found)
    known = read_json_object(record)
    if known.get("sha256") != found:
        raise DataError(
            f"{path} has the SHA-256 {found}",
            expected=f"{known.get('sha256')}, as it was when it first came ({known.get('seen')})",
            mend=f"if the file at {file.address} was rightly changed, remove {record} and try again",
        )
    return Fetched(path, None, found)


def _whole(file: RemoteFile, part: Path, patience: Patience) -> None:
    """Attempts until all bytes are here. An attempt that brought some makes the next ones count anew."""
    fruitless, first = 0, _size(part)
    while True:
        before = _size(part)
        try:
            _attempt(file, part, patience.silence)
            return
        except _Changed:
            _forget(part)
            why = "the file has changed on the server"
        except _Passing as failure:
            why = str(failure)
        except OSError as error:
            raise no_room(part, error) or error from None
        fruitless = 0 if _size(part) > before else fruitless + 1
        pauses = patience.pauses if _size(part) > first or before > first else patience.unreached_pauses
        if fruitless > len(pauses):
            raise _unreachable(file, part, why)
        pause = pauses[max(fruitless - 1, 0)] * random.uniform(0.5, 1.0)
        print(f"{file.name}: {why}; again in {pause:.1f} s", file=sys.stderr, flush=True)
        time.sleep(pause)


def _attempt(file: RemoteFile, part: Path, silence_s: float) -> None:
    """One request for what is missing. Raises _Passing, _Changed, or DataError when asking again is of no use."""
    known = _known(file, part)
    if known and known.get("total") == _size(part):
        return  # all of it had come, and the process was ended before it was checked
    with _asked(file, part, known, silence_s) as answer:
        if answer.status == 206:
            _check_continues(answer, _size(part), known)
        else:
            _begin(file, part, answer)
        total = read_json_object(_about(part)).get("total")
        _take(file, part, answer, total)
    if total is not None and _size(part) != total:
        raise _Passing(f"the connection ended after {_size(part):,} of {total:,} bytes")


def _asked(file: RemoteFile, part: Path, known: Mapping[str, Any], silence_s: float) -> Any:
    headers = {"User-Agent": f"largede/{__version__}", "Accept-Encoding": "identity"}
    if known:
        headers |= {"Range": f"bytes={_size(part)}-", "If-Range": known["validator"]}
    if not file.address.startswith(("http://", "https://")):
        raise DataError(f"the address {file.address}", expected="http:// or https://", mend="report this as a defect")
    try:
        # An opener of its own: the shared one keeps the proxies of the first use.
        opener = urllib.request.build_opener()
        return opener.open(urllib.request.Request(file.address, headers=headers), timeout=silence_s)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(file, part, error.code, known) from None
    except urllib.error.URLError as error:
        raise _Passing(f"cannot reach {_host(file)} ({error.reason})") from None
    except (http.client.HTTPException, OSError) as error:
        raise _Passing(f"{_host(file)} does not answer ({error!r})") from None


def _refused(file: RemoteFile, part: Path, status: int, known: Mapping[str, Any]) -> Exception:
    if status == 416 and known:
        return _Changed()
    if status >= 500 or status in _PASSING_STATUS:
        return _Passing(f"{_host(file)} answers with status {status}")
    return DataError(
        f"{file.address} answers with status {status}",
        expected="the published file",
        mend=f"get the file elsewhere and put it at {part.with_suffix('')}",
    )


def _check_continues(answer: Any, have: int, known: Mapping[str, Any]) -> None:
    """A part of a file must be the next part of the same file."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != have or found[2] not in ("*", str(known.get("total"))):
        raise _Changed
    if _validator(answer.headers) not in (None, known.get("validator")):
        raise _Changed


def _begin(file: RemoteFile, part: Path, answer: Any) -> None:
    """A whole file comes: forget the bytes here, and write down what it is."""
    length = answer.headers.get("Content-Length")
    total = int(length) if length and length.isdecimal() else None
    if file.md5 is not None and None not in (file.size, total) and total != file.size:
        raise DataError(
            f"{file.address} has {total:,} bytes",
            expected=f"{file.size:,} bytes, as published",
            mend=f"get the published file elsewhere and put it at {part.with_suffix('')}",
        )
    free = shutil.disk_usage(part.parent).free + _size(part)
    if total is not None and total > free:
        raise NoRoomError(
            f"{file.name} has {total:,} bytes, and {part.parent} has room for {free:,}",
            expected="enough free disk space",
            mend="free some space, or name another folder with --cache or LARGEDE_CACHE",
        )
    _forget(part)
    part.touch()
    write_json(_about(part), {"address": file.address, "total": total, "validator": _validator(answer.headers)})


def _take(file: RemoteFile, part: Path, answer: Any, total: int | None) -> None:
    """Append the body. Every byte that came is kept, whatever ends it."""
    have = _size(part)
    missing = ((total or file.size or have) - have) / _MIB
    there = f" ({have / _MIB:,.0f} MiB there already)" if have else ""
    progress = Progress(round(missing), "MiB", prefix=f"{file.name}{there}: ")
    counted = 0
    with part.open("ab", buffering=0) as stream:
        while total is None or have < total:
            try:
                # What has arrived, not a full piece: when the connection breaks or the process is killed, it is kept.
                piece = answer.read1(PIECE_BYTES if total is None else min(PIECE_BYTES, total - have))
            except (http.client.HTTPException, OSError) as error:
                raise _Passing(f"the connection broke ({error!r})") from None
            if not piece:
                return
            stream.write(piece)
            have += len(piece)
            counted += len(piece)
            if counted >= _MIB:
                progress.add(counted // _MIB)
                counted %= _MIB


def _validator(headers: Any) -> str | None:
    """What If-Range accepts: a strong ETag, else the date of the last change."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _known(file: RemoteFile, part: Path) -> dict[str, Any]:
    """What the server said about the bytes that are here; nothing when they cannot be gone on with."""
    if not _size(part) or not _about(part).is_file():
        return {}
    with contextlib.suppress(DataError):
        found = read_json_object(_about(part))
        if found.get("address") == file.address and isinstance(found.get("validator"), str):
            return found
    return {}


def _unreachable(file: RemoteFile, part: Path, why: str) -> MachineError:
    path = part.with_suffix("")
    kept = f"; {_size(part):,} bytes are kept for the next attempt" if _size(part) else ""
    return MachineError(
        f"{file.address} cannot be downloaded: {why}{kept}",
        expected="a network that reaches it (HTTPS_PROXY and NO_PROXY are honoured)",
        mend=f"run the command again, or get the file elsewhere and put it at {path}",
    )


def _host(file: RemoteFile) -> str:
    return file.address.split("/")[2]


def _about(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _about(part).unlink(missing_ok=True)
