"""The small parts that all sections of the page are made of."""

from collections.abc import Iterable, Mapping, Sequence

from largede.evaluation.report.digits import four_digits, p_digits, published_digits
from largede.evaluation.report.shown import html

SIDES = {"above": "above zero", "below": "below zero", "across": "across zero"}
_TONES = ("dense", "bm25", "fused")


def number(at: str, value: float, *, signed: bool = False) -> str:
    """A measured figure to four digits; `at` says where it is from."""
    return f'<span data-figure="{html(at)}">{four_digits(value, signed=signed)}</span>'


def published_number(value: float | None, family: str) -> str:
    """A published figure, with the digits it was published with (three or four); a dash where there is none."""
    return "–" if value is None else f"<span data-published>{published_digits(value, family)}</span>"


def interval(at: str, found: Mapping[str, float], *, signed: bool = False) -> str:
    low, high = (number(f"{at}/{end}", found[end], signed=signed) for end in ("low", "high"))
    return f"{low} to {high}"


def p_value(at: str, p: float) -> str:
    return f'<span data-figure="{html(at)}">{p_digits(p)}</span>'


def figure_cell(at: str, value: float) -> str:
    return f"<td>{number(at, value)}</td>"


def p_cell(at: str, p: float) -> str:
    return f"<td>{p_value(at, p)}</td>"


def row_head(name: str, small: str = "") -> str:
    """The head of a row, not escaped yet, with a word in small print under it."""
    under = f'<span class="range">{html(small)}</span>' if small else ""
    return f'<th><span class="fit">{html(name)}</span>{under}</th>'


def head_row(heads: Sequence[str], class_: str = "") -> str:
    cells = "".join(f'<th class="{class_}">{head}</th>' for head in heads)
    return f"<tr>{cells}</tr>"


def tone(key: str) -> str:
    """The class that colours a system: its own for the three lists, of whichever model; one for all else."""
    kind = key.rpartition(" ")[2]
    return kind if kind in _TONES else "other"


def system_head(key: str, label: str) -> str:
    """The head of a column of ours."""
    class_ = "fit" if len(label) > 16 else "whole"
    return f'<th class="{tone(key)}"><span class="{class_}"><span class="swatch"></span>{html(label)}</span></th>'


def drawing(title: str, picture: str, note: str = "", class_: str = "") -> str:
    """A picture with its title; `note` is markup."""
    caption = f"<figcaption>{note}</figcaption>" if note else ""
    return f'<figure class="{class_}"><h3>{html(title)}</h3>{picture}{caption}</figure>'


def table(head: str, rows: Iterable[str], class_: str = "") -> str:
    """`head` are the rows of the head, `rows` those of the body, or whole bodies; it scrolls where it is too wide."""
    body = "".join(rows)
    body = body if body.startswith("<tbody") else f"<tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{class_}"><thead>{head}</thead>{body}</table></div>'


def counted(count: int, noun: str) -> str:
    """1 collection, 2 collections."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def folded(title: str, content: str, *, is_open: bool = False) -> str:
    """`title` and `content` are markup."""
    return f'<details class="part"{" open" if is_open else ""}><summary>{title}</summary>{content}</details>'
