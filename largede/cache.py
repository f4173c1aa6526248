"""Where things lie that any command may use again: downloaded collections, Lucene indexes."""

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """A folder below `LARGEDE_CACHE`, else in the user's cache folder (XDG_CACHE_HOME or ~/.cache); not made here."""
    named = os.environ.get("LARGEDE_CACHE")
    if named:
        return Path(named).joinpath(*parts)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").joinpath("largede", *parts)
