"""The files of pairs that were named, in order, and what tells them from others."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_tools.parts import MANIFEST, pair_files
from largede.errors import DataError
from largede.files import sha256_file

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
# How much text a byte of a compressed input is expected to hold; errs to the large side.
_TEXT_PER_COMPRESSED_BYTE = 6


@dataclass(frozen=True)
class InputFile:
    """A file of pairs as the file system describes it."""

    path: Path
    bytes: int
    mtime_ns: int

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

    Raises DataError.
    """
    return [described(path) for given in inputs for path in (_files_of(given) if given.is_dir() else [given])]


def described(path: Path) -> InputFile:
    try:
        status = path.stat()
        with path.open("rb"):
            return InputFile(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}", expected="a readable JSON-lines file", mend="correct the path"
        ) from None


def _files_of(folder: Path) -> list[Path]:
    if (folder / MANIFEST).exists():
        return pair_files([folder])
    found = sorted(p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and not p.name.startswith("."))
    if not found:
        raise DataError(
            f"the folder {folder} holds no pairs",
            expected="files that end in " + ", ".join(SUFFIXES),
            mend="name the files themselves",
        )
    return found
