"""The items of one huge JSON array, one after the other, in bounded memory.

The array is the document itself, or the value of one key of the object that is the document.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from largede.errors import DataError

WINDOW_CHARACTERS = 1 << 20
# The longest item, or the longest value beside the array, that is read; a hostile file cannot fill the memory.
MAX_ITEM_CHARACTERS = 1 << 26
_SPACE = " \t\r\n"
# How near to the end of the window a value that is only cut off may be reported: the longest literal or escape.
_CUT_CHARACTERS = 16


def array_items(stream: IO[bytes], path: Path, key: str | None = None) -> Iterator[Any]:
    """The items of the array that `stream` holds, or that it holds under `key`. Whatever follows is checked as well.

    Raises DataError, naming `path` and the place: no such array, not UTF-8, bad JSON, a cut file, an enormous item.
    """
    window = _Window(stream, path)
    if key is None:
        yield from _items(window)
    else:
        yield from _items_under(window, key)
    if window.peek():
        raise window.bad("something follows the end of the JSON document")


def _items(window: "_Window") -> Iterator[Any]:
    window.expect("[")
    if window.skip("]"):
        return
    while True:
        yield window.value()
        if window.skip("]"):
            return
        window.expect(",")


def _items_under(window: "_Window", key: str) -> Iterator[Any]:
    window.expect("{")
    found = window.skip("}")
    met = False
    while not found:
        name = window.value()
        window.expect(":")
        if name == key and not met:
            met = True
            yield from _items(window)
        else:
            window.value()
        found = window.skip("}")
        if not found:
            window.expect(",")
    if not met:
        raise window.bad(f"the object has no array under {key!r}")


class _Window:
    """A stretch of the decoded text that moves on as values are taken from its front."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream = stream
        self._path = path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._passed = 0
        self._whole = False

    def peek(self) -> str:
        """The next character that is no white space, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or self._whole:
                return self._text[self._at : self._at + 1]
            self._read_on()

    def skip(self, character: str) -> bool:
        """Pass over `character` if it is next."""
        if self.peek() != character:
            return False
        self._at += 1
        return True

    def expect(self, character: str) -> None:
        if not self.skip(character):
            found = self.peek()
            raise self.bad(f"{found!r} stands where {character!r} should" if found else "the file ends early")

    def value(self) -> Any:
        """The value that is next."""
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except RecursionError:
                raise self.bad("brackets are nested too deeply") from None
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error):
                    raise self.bad(error.msg, error.pos) from None
            except ValueError as error:
                raise self.bad(str(error)) from None
            else:
                # A number cut in "1.5e+" is read as 1.5.
                if end + 2 < len(self._text) or self._whole:
                    self._at = end
                    return value
            if len(self._text) - self._at > MAX_ITEM_CHARACTERS:
                raise self.bad(f"one item is longer than {MAX_ITEM_CHARACTERS} characters")
            self._read_on()

    def bad(self, what: str, position: int | None = None) -> DataError:
        place = self._passed + (self._at if position is None else position)
        return DataError(
            f"{self._path} cannot be read at character {place}: {what}",
            expected="a whole JSON document in UTF-8",
            mend="fetch the file again, or choose the format that it has",
        )

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether more text may mend the error."""
        near_edge = error.pos >= len(self._text) - _CUT_CHARACTERS
        return not self._whole and (near_edge or error.msg.startswith("Unterminated string"))

    def _read_on(self) -> None:
        # Twice as much for an item that did not fit: it is scanned from its start again.
        wanted = max(WINDOW_CHARACTERS, len(self._text) - self._at)
        data = self._stream.read(wanted)
        try:
            more = self._decode(data, not data)
        except UnicodeDecodeError as error:
            raise self.bad(f"not UTF-8 ({error.reason})") from None
        self._whole = not data
        self._passed += self._at
        self._text = self._text[self._at :] + more
        self._at = 0
