"""What the texts of all readers have in common."""

import re

_INDENT = "\0"
"""A space that stays. No text has it: HTML drops it, and `indented` is only given text without it."""

_LEADING = re.compile(r"^[ \t]+", re.MULTILINE)


def collapsed_lines(text: str) -> str:
    """Every run of white space within a line one space, no empty lines, nothing around.

    Indentation that went through `indented` stays, but for that of the very first line.
    """
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line.strip(_INDENT)).replace(_INDENT, " ").strip()


def indented(code: str, begins_line: bool = True) -> str:
    """Code whose lines keep their indentation through `collapsed_lines`, tabs as spaces up to the next multiple of 4.

    `begins_line`: the first line of `code` is the beginning of a line.
    """
    first = "" if begins_line else code.split("\n", 1)[0]
    return first + _LEADING.sub(_kept, code[len(first) :])


def without_indents(text: str) -> str:
    """The text without the sign that `indented` uses."""
    return text.replace(_INDENT, "")


def _kept(match: re.Match[str]) -> str:
    return _INDENT * len(match[0].expandtabs(4))
