"""A shard of any place as a local file, for those who must seek in it more than block by block (`verify`)."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from largede.files import writing
from largede.streams.places.local import LocalPlace
from largede.streams.places.place import NotThere, Place, check_name


@contextmanager
def local_file(place: Place, name: str, limit: int) -> Iterator[Path]:
    """The file itself where it is local; else a copy of at most `limit` bytes that is gone when the block ends.

    Raises NotThere, Unreadable for a longer file and one that cannot be had, MachineError when there is no room left.
    """
    check_name(name)
    if isinstance(place, LocalPlace):
        if not (place.folder / name).exists():
            raise NotThere(name)
        yield place.folder / name
        return
    with tempfile.TemporaryDirectory(prefix="largede-") as folder:
        path = Path(folder) / name
        with writing(path) as stream:
            for piece in place.pieces(name, limit):
                stream.write(piece)
        yield path
