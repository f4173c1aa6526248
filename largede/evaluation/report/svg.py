"""The few SVG shapes that the report's pictures are made of. Colours and fonts come from the page's style sheet."""

import math
from collections.abc import Callable, Sequence

from largede.evaluation.report.shown import html

Scale = Callable[[float], float]


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """One element. Attribute names: `_` for `-`, a trailing `_` is dropped; `content` is markup, escaped already."""
    pairs = "".join(f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
    return f"<{name}{pairs}>{content}</{name}>"


def text(x: float, y: float, words: str, class_: str = "label", anchor: str = "start") -> str:
    return tag("text", html(words), x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str) -> str:
    return tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), class_=class_)


def picture(width: float, height: float, content: str, title: str) -> str:
    """The whole drawing; it scales with the page and has a name for those who cannot see it."""
    return tag("svg", tag("title", html(title)) + content, viewBox=f"0 0 {width} {height}", role="img")


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Map low..high to start..end; a range of no width maps to the middle."""
    span = high - low
    return lambda value: (start + end) / 2 if span == 0 else start + (value - low) / span * (end - start)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between low and high, roughly `about` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A tick's label: 12k, 0.25, 1e-05."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}"


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else html(str(value))
