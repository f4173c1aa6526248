"""Settings that are out of range, refused where they are made."""

from collections.abc import Callable, Iterable
from typing import Any

from largede.errors import DataError


def demand(settings: Any, names: Iterable[str], within: Callable[[Any], bool], expected: str) -> None:
    """Raise DataError, naming its flag, for the first of these settings that is not `within` what is `expected`."""
    for name in names:
        value = getattr(settings, name)
        if not within(value):
            flag = "--" + name.replace("_", "-")
            raise DataError(f"{flag} {value}", expected=expected, mend=f"change {flag}")
