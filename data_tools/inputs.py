"""The files of pairs that were named, in order, and what tells them from others."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_tools.parts import SUFFIXES, pairs_in, parts_of
from largede.errors import DataError
from largede.files import sha256_file

# How much text a byte of a compressed input is expected to hold; errs to the large side.
_TEXT_PER_COMPRESSED_BYTE = 6


@dataclass(frozen=True)
class InputFile:
    """A file of pairs as the file system describes it; `pairs` is what a manifest beside it says, if there is one."""

    path: Path
    bytes: int
    mtime_ns: int
    pairs: int | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """What a change shows in without reading it."""
        return {"name": str(self.path), "bytes": self.bytes, "modified_ns": self.mtime_ns}

    @property
    def expected_text_bytes(self) -> int:
        return self.bytes * (_TEXT_PER_COMPRESSED_BYTE if self.path.suffix in (".gz", ".zst") else 1)


@dataclass(frozen=True)
class Content:
    """An input as it was when it was read. `name` has no folder: moved inputs are the same inputs."""

    name: str
    bytes: int
    mtime_ns: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def is_of(self, file: InputFile) -> bool:
        """Whether `file` still holds this. Its bytes are read only when its name or time differs, not its size."""
        if self.bytes != file.bytes:
            return False
        if (self.name, self.mtime_ns) == (file.path.name, file.mtime_ns):
            return True
        return self.sha256 == sha256_file(file.path)


def input_files(inputs: Sequence[Path]) -> list[InputFile]:
    """The files named; in place of a folder its parts, or else the files directly in it that hold pairs, by name.

    Raises DataError for what cannot be read, a file that is named twice, and a folder whose parts are not as written.
    """
    named = (_files_of(given) if given.is_dir() else [(given, None)] for given in inputs)
    files = [described(path, pairs) for files in named for path, pairs in files]
    refuse_twice(file.path for file in files)
    return files


def refuse_twice(paths: Iterable[Path]) -> None:
    """Raise DataError when two of the paths lead to one file, which would count twice."""
    seen: set[Path] = set()
    for path in paths:
        found = path.resolve()
        if found in seen:
            raise DataError(f"{path} is named twice", expected="every input once", mend="name it once")
        seen.add(found)


def described(path: Path, pairs: int | None = None) -> InputFile:
    try:
        status = path.stat()
        with path.open("rb"):
            return InputFile(path, status.st_size, status.st_mtime_ns, pairs)
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}", expected="a readable JSON-lines file", mend="correct the path"
        ) from None


def _files_of(folder: Path) -> Sequence[tuple[Path, int | None]]:
    """Each with the pairs that it has to hold, where that is known."""
    parts = parts_of(folder)
    found = [(path, None) for path in pairs_in(folder)] if parts is None else parts
    if not found:
        raise DataError(
            f"the folder {folder} holds no pairs",
            expected="files that end in " + ", ".join(SUFFIXES),
            mend="name the files themselves, or the folder that `largede-data pairs` wrote",
        )
    return found
