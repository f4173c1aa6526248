"""Files that are either whole or absent."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from largede.errors import DataError, MachineError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of `path`; it takes the name `path` only when the block ends without an error.

    The bytes are on the disk before the name is. On any error the neighbour is removed and `path` stays as it was.
    Raises MachineError when there is no room left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise MachineError(
            f"no room to write {path} ({error.strerror})",
            expected="enough free disk space",
            mend="free some space or choose another output folder, then run the same command again: it resumes",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: object, *, indent: int | None = 1) -> None:
    with writing(path) as stream:
        stream.write(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def read_json_object(path: Path) -> dict[str, Any]:
    """One JSON object from a file that largede wrote earlier. Raises DataError when it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise _damaged(path, f"a JSON {type(value).__name__}")
    return value


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} cannot be read ({why})",
        expected="a JSON object written by largede",
        mend="remove the folder that holds it and run the command again",
    )


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint_of(value: object) -> str:
    """Hex digest of a JSON value; equal values agree whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
