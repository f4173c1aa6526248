"""Arrays as .npy files that are either whole or absent."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from largede.files import writing


class _Writer:
    """What numpy takes for no file of the system: writing to one itself, it says nothing of why it failed."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write


def save_array(path: Path, values: np.ndarray) -> None:
    """Write one array. Raises NoRoomError when there is no room left."""
    with writing(path) as stream:
        np.save(_Writer(stream.write), values, allow_pickle=False)
