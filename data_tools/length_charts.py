"""How long texts are: bars in the terminal and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.survey import Lengths
from largede.files import writing

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_TERMINAL_BINS = 16
_PICTURE_BINS = 48
_SHOWN_PERCENT = 99.0
"""Longer texts share the last bar: one of them may be a hundred times as long as the rest."""

_INK, _SOFT, _GRID = "#1b1d22", "#646a75", "#e6e6e2"
_COLOURS = ("#2763d8", "#0c8f74")
_LIMIT = "#c9730a"


@dataclass(frozen=True)
class Bins:
    """Texts of `starts[i]` to before `starts[i + 1]` units; the last bin holds all from its start on."""

    starts: NDArray[np.int64]
    width: int
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, lengths: Lengths, most_bins: int) -> "Bins":
        top = lengths.percentile(_SHOWN_PERCENT) + 1
        width = _round_width(top / most_bins)
        # The last bin begins behind the percentile that is shown in full.
        starts = np.arange(0, top + width, width, dtype=np.int64)
        return cls(starts, width, np.add.reduceat(lengths.counts, starts))

    def label(self, number: int) -> str:
        start = int(self.starts[number])
        if number == len(self.starts) - 1:
            return f"{start:,} or more"
        return f"{start:,}" if self.width == 1 else f"{start:,} to {start + self.width - 1:,}"


def terminal_histogram(lengths: Lengths, columns: int) -> list[str]:
    bins = Bins.of(lengths, _TERMINAL_BINS)
    labels = [bins.label(number) for number in range(len(bins.starts))]
    label_width = max(map(len, labels))
    bar_width = max(10, min(60, columns - label_width - 24))
    most = int(bins.counts.max())
    lines = []
    for label, count in zip(labels, bins.counts.tolist(), strict=True):
        bar = _bar(count / most * bar_width)
        lines.append(f"  {label:>{label_width}} {bar:<{bar_width}} {count:>11,} {count / lengths.total:>6.1%}")
    return lines


def _bar(length: float) -> str:
    """A bar of that many characters; whatever is more than nothing shows."""
    eighths = max(1, round(length * 8)) if length else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def write_picture(lengths: Sequence[Lengths], unit: str, limits: Sequence[int | None], basis: str, path: Path) -> None:
    """Two histograms as PNG: queries and passages by `unit`, their medians, and the limits where they cut."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=150, facecolor="white", layout="constrained")
    axes = figure.subplots(1, 2)
    for place, (name, some, limit) in enumerate(zip(("queries", "passages"), lengths, limits, strict=True)):
        _draw(axes[place], some, name, unit, limit, _COLOURS[place])
    figure.suptitle(f"Lengths in {basis}", x=0.01, ha="left", fontsize=12, fontweight="bold", color=_INK)
    with writing(path) as file:
        FigureCanvasAgg(figure).print_png(file)


def _draw(axes: Any, lengths: Lengths, name: str, unit: str, limit: int | None, colour: str) -> None:
    bins = Bins.of(lengths, _PICTURE_BINS)
    share = bins.counts / lengths.total * 100
    drawn = axes.bar(bins.starts, share, width=bins.width * 0.92, align="edge", color=colour, linewidth=0)
    drawn[-1].set_alpha(0.45)
    end = int(bins.starts[-1]) + bins.width
    axes.set_xlim(0, end)
    axes.set_ylim(0, max(share) * 1.22)
    _mark(axes, lengths.percentile(50), f"half up to {lengths.percentile(50):,}", _INK, 1.15)
    if limit is not None and limit < end:
        cut = lengths.above(limit) / lengths.total
        _mark(axes, limit, f"limit {limit:,} cuts {cut:.1%}", _LIMIT, 1.06)
    per_bin = unit if bins.width == 1 else f"{bins.width:,} {unit}"
    axes.set_title(f"{name}, % for every {per_bin.removesuffix('s') if bins.width == 1 else per_bin}", **_TITLE)
    over = f"pale bar: {bins.label(len(bins.starts) - 1)}, up to {lengths.percentile(100):,}"
    axes.set_xlabel(f"{unit}   ({over})", color=_SOFT, fontsize=9)
    _clean(axes)


_TITLE: dict[str, Any] = {"loc": "left", "fontsize": 10.5, "color": _INK}


def _mark(axes: Any, x: int, text: str, colour: str, height: float) -> None:
    """A line at a length, labelled on the side where there is room."""
    top = axes.get_ylim()[1] / 1.22 * height
    axes.plot([x, x], [0, top], color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
    left = x > 0.6 * axes.get_xlim()[1]
    offset = (-5, 0) if left else (5, 0)
    axes.annotate(
        text, (x, top), offset, textcoords="offset points", ha="right" if left else "left", va="center",
        color=colour, fontsize=9,
    )  # fmt: skip


def _clean(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_SOFT)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_SOFT, labelsize=9, length=0)
    axes.locator_params(axis="x", integer=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")


def _round_width(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is not below `least`."""
    width = 1
    while True:
        for factor in (1, 2, 5):
            if width * factor >= least:
                return width * factor
        width *= 10
