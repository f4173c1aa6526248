"""What the pass over a large corpus found, kept for the next command and for the other processes of this one.

A folder in largede's cache for each corpus: the ids and the places of the lines as arrays that are mapped into memory,
shared by all processes of a host. It counts for the file of that path, size, time of change and inode; a document is
checked against its id whenever it is read.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from largede.cache import cache_folder
from largede.files import fingerprint_of, read_json_object, write_json, writing_folder
from largede.retrieval.document_ids import DocumentIds

LEAST_BYTES = 64 * 2**20
"""A smaller corpus is read again sooner than its folder is found."""
SETTLED_S = 5.0
"""A file that changed only now may change once more within the same tick of the clock."""
_ABOUT = "corpus.json"


@dataclass(frozen=True)
class Kept:
    ids: DocumentIds
    starts: np.ndarray
    fingerprint: str


def read(path: Path) -> Kept | None:
    """What was kept of this very file, if anything was."""
    folder = _folder(path)
    if folder is None or not (folder / _ABOUT).is_file():
        return None
    letters, ends, starts = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("letters", "ends", "starts"))
    return Kept(DocumentIds.of_arrays(letters, ends), starts, read_json_object(folder / _ABOUT)["fingerprint"])


def keep(path: Path, found: Kept) -> None:
    """Keep it, unless the corpus is small or has changed only now, or another process was sooner."""
    folder = _folder(path)
    if folder is None or folder.exists() or time.time() - path.stat().st_mtime < SETTLED_S:
        return
    letters, ends = found.ids.as_arrays()
    try:
        with writing_folder(folder) as partial:
            for name, values in (("letters", letters), ("ends", ends), ("starts", found.starts)):
                np.save(partial / f"{name}.npy", values, allow_pickle=False)
            write_json(partial / _ABOUT, {"path": str(path.resolve()), "fingerprint": found.fingerprint})
    except OSError:
        # Without it everything works, only later: another process was sooner, or the cache cannot be written.
        return


def _folder(path: Path) -> Path | None:
    """Where it would be kept; None for a small or absent file."""
    if not path.is_file():
        return None
    about = path.stat()
    if about.st_size < LEAST_BYTES:
        return None
    identity = [str(path.resolve()), about.st_size, about.st_mtime_ns, about.st_ino]
    return cache_folder("corpora", fingerprint_of(identity)[:20])
