"""Files and folders that are either whole or absent."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, TypeVar, get_origin, get_type_hints

from largede.errors import DataError, LargedeError, NoRoomError

Kind = TypeVar("Kind")

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of `path`; it takes the name `path` only when the block ends without an error.

    The bytes are on the disk before the name is. On any error the neighbour is removed and `path` stays as it was.
    Raises NoRoomError when there is no room left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{_name_of_our_own()}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise no_room(path, error) or error from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def writing_folder(out: Path, *, replacing: bool = False) -> Iterator[Path]:
    """A temporary sibling of `out` that takes its name when the block ends well, and disappears when it does not.

    With `replacing`, a folder that is there gives way at the end: between two renames there is none.
    Raises NoRoomError when there is no room left, OSError when `out` is a folder that holds something.
    """
    partial: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        # mkdtemp makes private folders; what we write is read by other users' jobs as well.
        partial.chmod(0o777 & ~_umask())
        yield partial
        with giving_way(out) if replacing and out.exists() else nullcontext():
            os.replace(partial, out)
    except OSError as error:
        raise no_room(out, error) or error from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def giving_way(folder: Path) -> Iterator[None]:
    """Another folder may take the name in this block; if it does not, the old one has its name again."""
    _clear_removed(folder)
    doomed = folder.with_name(f".{folder.name}.{os.getpid()}.removed")
    os.replace(folder, doomed)
    try:
        yield
    except BaseException:
        os.replace(doomed, folder)
        raise
    shutil.rmtree(doomed, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Take a folder away in one step, if it is there: whoever is killed in the middle leaves all of it or nothing.

    Also removes what such a one left beside it. One process at a time may do this to a folder.
    """
    _clear_removed(folder)
    if folder.exists():
        doomed = folder.with_name(f".{folder.name}.{_name_of_our_own()}.removed")
        os.replace(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _clear_removed(folder: Path) -> None:
    """What a process left beside `folder` that was killed while it removed it."""
    for left in folder.parent.glob(f".{folder.name}.*.removed"):
        shutil.rmtree(left, ignore_errors=True)


def remove_unfinished(folder: Path, begun: float) -> None:
    """What killed processes left anywhere below `folder`: files and folders of temporary name, untouched since `begun`.

    `begun` is seconds since the epoch, when the caller's own work began: what is written by now is somebody's.
    """
    for ending in ("partial", "removed"):
        for left in list(folder.rglob(f".*.{ending}")):
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < begun:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


def refuse_existing(out: Path, error: type[LargedeError]) -> None:
    """Raise `error` when `out` is there and holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise error(f"{out} already exists", expected="a new or empty folder", mend="remove it, or name another folder")


def no_room(path: Path, error: OSError) -> NoRoomError | None:
    """The error to raise for an `OSError` that says the disk is full; None for any other."""
    if error.errno not in _NO_ROOM:
        return None
    return NoRoomError(
        f"no room left to write {path} ({error.strerror})",
        expected="enough free disk space",
        mend="free some space or choose another output folder, then run the same command again",
    )


def is_no_room(error: Exception) -> bool:
    return isinstance(error, NoRoomError) or (isinstance(error, OSError) and error.errno in _NO_ROOM)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk: without it, a power cut may undo a rename."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _name_of_our_own() -> str:
    # Threads share a process number, and so do containers that share a disk.
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    with writing(path) as stream:
        stream.write(text.encode())


def write_json(path: Path, value: object, *, indent: int | None = 1) -> None:
    with writing(path) as stream:
        stream.write(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False).encode() + b"\n")


MOVE_AWAY = "bring that file back from a copy, or move it away and run the command again"


def read_json_object(path: Path, mend: str = MOVE_AWAY) -> dict[str, Any]:
    """One JSON object from a file that largede wrote earlier. Raises DataError, with `mend`, when it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise damaged_file(path, str(error), mend) from error
    if not isinstance(value, dict):
        raise damaged_file(path, f"a JSON {type(value).__name__}", mend)
    return value


def as_kind(kind: type[Kind], found: Mapping[str, Any]) -> Kind:
    """A dataclass from a JSON object, whose other keys are passed over. Raises TypeError, naming the field amiss.

    Numbers, words and mappings are looked at, not what is in the mappings.
    """
    allowed = {int: (int,), float: (int, float), str: (str,), bool: (bool,), dict: (dict,)}
    hints = get_type_hints(kind)
    values = {name: found[name] for name in hints if name in found}
    for name, value in values.items():
        hint = get_origin(hints[name]) or hints[name]
        if not isinstance(value, allowed[hint]) or (isinstance(value, bool) and hint is not bool):
            raise TypeError(f"{name} is {value!r}")
    return kind(**values)


def damaged_file(path: Path, why: str, mend: str = MOVE_AWAY) -> DataError:
    return DataError(f"{path} cannot be read ({why})", expected="a JSON object written by largede", mend=mend)


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint_of(value: object) -> str:
    """Hex digest of a JSON value; equal values agree whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
