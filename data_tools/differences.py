"""What tells two runs apart, in words: settings by name, inputs by path."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MOST_NAMED = 3


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between what a run was begun with and what is asked for; the first few, the others counted."""
    found = list(_differences(before, now))
    named, more = found[:_MOST_NAMED], len(found) - _MOST_NAMED
    return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name == "inputs":
            yield from _of_inputs(old or [], new or [])
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new)
        else:
            yield f"{name} is {new!r}, not {old!r}"


def _of_inputs(before: Sequence[Any], now: Sequence[Any]) -> Iterator[str]:
    if len(before) != len(now):
        yield f"{len(now)} inputs, not {len(before)}"
    for old, new in zip(before, now, strict=False):
        if _name(old) != _name(new):
            yield f"input {_name(new)} in place of {_name(old)}"
        elif old != new:
            yield f"input {_name(new)} has changed"


def _name(entry: Any) -> str:
    return str(entry["name"] if isinstance(entry, Mapping) else entry)
