"""HTML of posts into plain text.

Parsed by Lexbor through selectolax: a whole HTML5 parser in C, which mends what browsers mend.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from data_tools.readers.lines import collapsed_lines, indented, without_indents

_LEFT_OUT = frozenset(
    {"script", "style", "template", "noscript", "iframe", "object", "svg", "-comment", "head", "title"}
)
_BLOCKS = (
    ("p", "div", "section", "article", "aside", "blockquote", "pre", "hr", "br", "details", "summary")
    + ("ul", "ol", "li", "dl", "dt", "dd", "table", "tr", "figure", "figcaption")
    + ("h1", "h2", "h3", "h4", "h5", "h6")
)
_BREAKS = dict.fromkeys(_BLOCKS, "\n") | dict.fromkeys(("td", "th"), " ")

_SCRIPTS = frozenset({"sup", "sub"})
_ORDINAL = re.compile(r"st|nd|rd|th")
# One number or name with its sign or charge, signs alone, or something that has brackets of its own.
_NEEDS_NO_BRACKETS = re.compile(r"[-+−]?[\w.]+[-+−]?|\W+|[\[(].*[\])]")

MOST_HTML_CHARACTERS = 100_000
"""Posts are at most 30,000 characters of Markdown. The parser's time grows with the square of the depth of nesting, so
what is longer than this is not for it."""


def html_to_text(html: str, is_repeated: Callable[[str], bool] | None = None) -> str:
    """The text as it reads: one line for each paragraph, list item, table row and line of code; spaces collapsed.

    Quotations (`blockquote`) stay, but for those whose text `is_repeated` tells to leave out; one within another goes
    or stays with it. Links become their texts, scripts and styles nothing, entities their characters. Code in `pre`
    keeps its indentation but not its empty lines: nothing that is returned has any. Numbers stay what they are:
    2<sup>10</sup> becomes 2^10, CO<sub>2</sub> CO2. Lost are the numbers that a browser puts before the items of `ol`,
    and pictures with their `alt`. The caller sees to it that `html` has no more than MOST_HTML_CHARACTERS.
    """
    html = without_indents(html)
    if "<" not in html and "&" not in html:
        return collapsed_lines(html)
    body = LexborHTMLParser(html).body
    if body is None:
        return ""
    return collapsed_lines("".join(_pieces(body, is_repeated)))


def _pieces(body: Any, is_repeated: Callable[[str], bool] | None) -> Iterator[str]:
    """The texts below `body` with line breaks around blocks, and signs around what stands higher or lower."""
    in_code = 0
    before = "\n"
    closings: list[str] = []
    for node, tag, ends in _walk(body, is_repeated):
        if tag == "-text":
            text = node.text_content
            piece = indented(text, before == "\n") if in_code else text.replace("\n", " ")
        elif tag not in _SCRIPTS:
            piece = _BREAKS.get(tag, "")
            if tag == "pre":
                in_code += -1 if ends else 1
        elif ends:
            piece = closings.pop()
        else:
            piece, closing = _script_signs(node, before)
            closings.append(closing)
        if piece:
            yield piece
            before = piece[-1]


def _walk(body: Any, is_repeated: Callable[[str], bool] | None) -> Iterator[tuple[Any, str, bool]]:
    """(node, tag, False) where a text or element begins, (element, tag, True) where it ends, without what is left out.

    No recursion: a hostile page may be nested deeply.
    """
    above: list[tuple[Any, str]] = []
    quotations = 0
    node = body.child
    while node is not None or above:
        if node is None:
            # All children are done: behind the element that held them.
            node, tag = above.pop()
            quotations -= tag == "blockquote"
            yield node, tag, True
        elif (tag := node.tag) == "-text":
            yield node, tag, False
        elif tag == "blockquote" and is_repeated and not quotations and is_repeated(node.text(separator=" ")):
            # Only the outermost is asked about: to ask about each within another takes time that grows with the square.
            yield node, tag, True
        elif tag not in _LEFT_OUT:
            quotations += tag == "blockquote"
            yield node, tag, False
            above.append((node, tag))
            node = node.child
            continue
        node = node.next


def _script_signs(node: Any, before: str) -> tuple[str, str]:
    """What goes before and behind the text of a `sup` or `sub`, that it may not run into the character `before` it."""
    child = node.child
    text = child.text_content if child is not None and child.tag == "-text" and child.next is None else ""
    attached = before.isalnum() or before in ")]}"
    # Small print and links to notes are no part of the word before them.
    if not attached or not text or any(map(str.isspace, text)):
        return " ", ""
    if node.tag == "sup" and before.isdigit() and _ORDINAL.fullmatch(text):
        return "", ""
    if node.tag == "sub" and text[0].isdigit() and not before.isdigit():
        return "", ""
    sign = "^" if node.tag == "sup" else "_"
    return (sign, "") if _NEEDS_NO_BRACKETS.fullmatch(text) else (f"{sign}(", ")")
