"""HTML of posts into plain text.

Parsed by Lexbor through selectolax: a whole HTML5 parser in C, which mends what browsers mend.
"""

from collections.abc import Iterator
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from data_tools.readers.lines import collapsed_lines

_LEFT_OUT = frozenset(
    {"script", "style", "template", "noscript", "iframe", "object", "svg", "-comment", "head", "title"}
)
_BLOCKS = (
    ("p", "div", "section", "article", "aside", "blockquote", "pre", "hr", "br", "details", "summary")
    + ("ul", "ol", "li", "dl", "dt", "dd", "table", "tr", "figure", "figcaption")
    + ("h1", "h2", "h3", "h4", "h5", "h6")
)
_BREAKS = dict.fromkeys(_BLOCKS, "\n") | dict.fromkeys(("td", "th"), " ")

MOST_HTML_CHARACTERS = 100_000
"""Posts are at most 30,000 characters of Markdown. The parser's time grows with the square of the depth of nesting, so
what is longer than this is not for it."""


def html_to_text(html: str) -> str:
    """The text as it reads: one line for each paragraph, list item, table row and line of code; spaces collapsed.

    Links become their texts, pictures, scripts and styles nothing, entities their characters. The caller sees to it
    that `html` has no more than MOST_HTML_CHARACTERS.
    """
    if "<" not in html and "&" not in html:
        return collapsed_lines(html)
    body = LexborHTMLParser(html).body
    if body is None:
        return ""
    return collapsed_lines("".join(_pieces(body)))


def _pieces(body: Any) -> Iterator[str]:
    """The texts below `body` with line breaks around blocks. No recursion: a hostile page may be nested deeply."""
    above: list[Any] = []
    in_code = 0
    node = body.child
    while node is not None or above:
        if node is None:
            # All children are done: behind the element that held them.
            node = above.pop()
            in_code -= node.tag == "pre"
            yield _BREAKS.get(node.tag, "")
            node = node.next
            continue
        tag = node.tag
        if tag not in _LEFT_OUT and tag != "-text":
            yield _BREAKS.get(tag, "")
            in_code += tag == "pre"
            above.append(node)
            node = node.child
            continue
        if tag == "-text":
            yield node.text_content if in_code else node.text_content.replace("\n", " ")
        node = node.next
