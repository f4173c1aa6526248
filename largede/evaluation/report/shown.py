"""Words that came from outside, made fit to be shown: in HTML, in SVG, in a cell of a Markdown table."""

import re
import unicodedata
from html import escape

# Control characters, marks that turn the direction of writing, tags that are not seen, halves of a surrogate pair.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~^$=:@-])")


def visible(text: str) -> str:
    """The text without what is not seen: each such character becomes the replacement character.

    A title that turns the direction of writing could otherwise make the figures beside it read backwards.
    """
    return _HIDDEN.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def html(text: str) -> str:
    """For HTML and SVG, inside an element or a quoted attribute."""
    return escape(visible(text))


def markdown(text: str) -> str:
    """For one cell of a Markdown table, where it means nothing but itself."""
    return _MARKDOWN.sub(r"\\\1", escape(" ".join(visible(text).split()), quote=False))


def fitted(text: str, width: float, size: float = 13.5) -> str:
    """As much of a label as surely fits into `width` pixels of letters of this size, with … where something is gone."""
    text = " ".join(visible(text).split())
    if label_width(text, size) <= width:
        return text
    kept = text
    while kept and label_width(kept + "…", size) > width:
        kept = kept[:-1]
    return kept + "…"


def label_width(text: str, size: float = 13.5) -> float:
    """An upper estimate in pixels: the page chooses the font."""
    return size * sum(map(_em, text))


def _em(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF" or unicodedata.category(letter) == "So":
        return 1.1
    if letter in "iljtfrI.,:;|!'()[]-/ ":
        return 0.46
    return 0.9 if letter.isupper() or letter in "mw%@&" else 0.68


def plain(value: object) -> str:
    """A setting in words: no brackets of a programming language."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return " and ".join(map(plain, value)) or "none"
    return "none" if value is None else str(value)
