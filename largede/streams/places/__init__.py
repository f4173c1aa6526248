"""Where shards lie: a local folder, an object store or web server (any fsspec URL), or behind a command (`pipe:`).

Nothing here is imported before it is needed: a run on a local folder loads neither fsspec nor aiohttp.
"""

from pathlib import Path
from urllib.parse import urlsplit

from largede.errors import DataError
from largede.runs.redact import has_lost_secrets
from largede.streams.places.local import LocalPlace
from largede.streams.places.place import Place

PIPE = "pipe:"


def place_of(text: str | Path, *, allow_pipe: bool = False) -> Place:
    """The place that a user named: a folder, a URL, or `pipe:COMMAND with {name}`. Nothing is read yet.

    Raises DataError for a pipe without `allow_pipe`, for URLs that cannot be the folder of shards, and for what a saved
    recipe holds instead of a command or a secret.
    """
    if isinstance(text, Path):
        return LocalPlace(text)
    _refuse_what_lost_its_secrets(text)
    if text.startswith(PIPE):
        return _piped(text, allow_pipe)
    protocol, separator, path = text.partition("://")
    if not separator:
        return LocalPlace(Path(text))
    if protocol in ("file", "local"):
        return LocalPlace(Path(path))
    _check_url(text, protocol)
    if protocol in ("http", "https"):
        from largede.streams.places.web import WebPlace

        return WebPlace(text)
    from largede.streams.places.store import StorePlace

    return StorePlace(text)


def _refuse_what_lost_its_secrets(text: str) -> None:
    if has_lost_secrets(text):
        raise DataError(
            f"the place of the shards is {text!r}: what was there is never saved with a recipe",
            expected="the command or address itself",
            mend="give it again on the command line: --data.shards, or --data.sources.NAME.shards",
        )


def _piped(text: str, allow_pipe: bool) -> Place:
    if not allow_pipe:
        raise DataError(
            "the place of the shards would run a shell command",
            expected="a folder or URL, since a recipe from somewhere else must not run commands here",
            mend="give --allow-pipe on the command line if you trust this command",
        )
    from largede.streams.places.piped import PipedPlace

    return PipedPlace(text.removeprefix(PIPE))


def _check_url(text: str, protocol: str) -> None:
    if "::" in text:
        raise DataError(
            f"{text} is a chain of file systems",
            expected="one file system, of which only the blocks that are needed are read",
            mend="name the inner address alone",
        )
    address = urlsplit(text)
    if address.password:
        raise DataError(
            f"the address of the shards on {address.hostname} holds a password",
            expected="an address without one, because addresses are saved with the recipe",
            mend=f"let fsspec know the password: FSSPEC_{protocol.upper()} or ~/.config/fsspec",
        )
    if protocol in ("http", "https") and (address.query or address.fragment):
        raise DataError(
            f"{text} has something behind the path",
            expected="the address of a folder, to which the names of the shards are added",
            mend="leave out what follows the ? or #",
        )
