"""What becomes of a run's figures when the disk is full: the run stops, or goes on without them and says so once."""

import os
from collections.abc import Callable
from pathlib import Path

from largede.files import is_no_room, no_room


class FullDisk:
    """Writes what a run could go on without. Not collective: one rank writes the figures."""

    def __init__(self, folder: Path, *, goes_on: bool, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.goes_on = goes_on
        self.say = say
        self.has_warned = False

    def takes(self, write: Callable[[], object]) -> bool:
        """Do `write`; false when there was no room for it and the run goes on.

        Raises:
            NoRoomError: there was no room, and the run is to stop.
        """
        try:
            write()
        except OSError as error:
            if not is_no_room(error):
                raise
            if not self.goes_on:
                raise no_room(self.folder, error) or error from None
            if not self.has_warned:
                self.say(f"warning: no room left in {self.folder}: figures are lost until there is; going on")
            self.has_warned = True  # once: at the brim of a disk, some lines find room and others do not
            return False
        return True


def append_line(path: Path, line: str) -> None:
    """Append a line, or none of it: half a line would spoil the one that follows. Raises OSError."""
    with path.open("ab", buffering=0) as file:
        before, content = file.tell(), line.encode() + b"\n"
        try:
            written = file.write(content)
            if written < len(content):
                file.write(content[written:])  # says why no more was taken
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise
