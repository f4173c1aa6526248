"""The report's pictures, each from plain numbers to one inline SVG."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from largede.evaluation.report import svg
from largede.evaluation.report.shown import fitted, label_width


@dataclass(frozen=True)
class Row:
    """One line of a picture of intervals; `key` chooses its colour."""

    key: str
    label: str
    mean: float
    low: float
    high: float


def intervals(rows: Sequence[Row], title: str) -> str:
    """A dot and a 95 % whisker for each system, on a common scale."""
    left, right, top, step = _label_room([row.label for row in rows]), 508, 10, 48
    height = top + step * len(rows) + 26
    low, high = min(row.low for row in rows), max(row.high for row in rows)
    margin = max((high - low) * 0.12, 1e-3)
    low, high = max(0.0, low - margin), min(1.0, high + margin)
    x = svg.linear(low, high, left, right)
    floor = top + step * len(rows)
    parts = [_vertical(x(tick), top, floor, svg.short(tick)) for tick in svg.ticks(low, high)]
    for place, row in enumerate(rows):
        y = top + step * (place + 0.5)
        parts.append(svg.text(left - 12, y + 5, fitted(row.label, left - 16), "name", "end"))
        parts.append(svg.line(x(row.low), y, x(row.high), y, f"whisker {row.key}"))
        parts.append(svg.tag("circle", cx=x(row.mean), cy=y, r=6.5, class_=f"dot {row.key}"))
    return svg.picture(528, height, "".join(parts), title)


def differences(rows: Sequence[Row], other: str, title: str) -> str:
    """The paper's figure 4: a bar for each collection from zero to its mean difference, with the 95 % whisker.

    A row's `key` colours what lies above zero, `other` what lies below.
    """
    left, right, top, step = _label_room([row.label for row in rows]), 508, 10, 26
    floor = top + step * len(rows)
    low, high = _padded([0.0, *(row.low for row in rows), *(row.high for row in rows)])
    x = svg.linear(low, high, left, right)
    parts = [_vertical(x(tick), top, floor, svg.short(tick)) for tick in svg.ticks(low, high)]
    for place, row in enumerate(rows):
        y = top + step * (place + 0.5)
        start, end = sorted((x(0), x(row.mean)))
        tone = row.key if row.mean > 0 else other
        parts.append(svg.text(left - 12, y + 4.5, fitted(row.label, left - 16, 12), "row", "end"))
        parts.append(svg.tag("rect", x=start, y=y - 8, width=end - start, height=16, class_=f"bar pale {tone}"))
        parts.append(svg.line(x(row.low), y, x(row.high), y, "error"))
    parts.append(svg.line(x(0), top, x(0), floor, "zero"))
    return svg.picture(528, floor + 26, "".join(parts), title)


@dataclass(frozen=True)
class Sized:
    """A model in the picture of size against quality; `key` chooses its colour, published ones have `published`."""

    key: str
    label: str
    parameters: int
    value: float


def size_against_quality(ours: Sequence[Sized], published: Sequence[Sized], title: str) -> str:
    """The paper's figure 1: the average against the parameters (a log axis), the published sizes as a curve."""
    left, right, top, bottom, room = 46, 352, 14, 250, 176
    points = [*ours, *published]
    sizes = [math.log10(point.parameters) for point in points]
    x = svg.linear(min(sizes) - 0.15, max(sizes) + 0.15, left, right)
    low, high = _padded([point.value for point in points])
    y = svg.linear(low, high, bottom, top)
    parts = [_horizontal(y(tick), left, right, svg.short(tick)) for tick in svg.ticks(low, high, 4)]
    parts += [_vertical(x(tick), top, bottom, label) for tick, label in _size_ticks(min(sizes), max(sizes))]
    curve = sorted((x(math.log10(point.parameters)), y(point.value)) for point in published)
    if curve:
        parts.append(svg.path(curve, "trace published"))
    places = _apart([y(point.value) for point in points], 16, top + 4, bottom + 10)
    for point, place in zip(points, places, strict=True):
        at = (x(math.log10(point.parameters)), y(point.value))
        parts.append(svg.path([at, (right + 6, place), (right + 14, place)], "leader"))
        parts.append(svg.tag("circle", cx=at[0], cy=at[1], r=6, class_=f"dot {point.key}"))
        parts.append(svg.text(right + 18, place + 4, fitted(point.label, room - 20, 12), "row"))
    return svg.picture(right + room, max(bottom + 28, *places) + 8, "".join(parts), title)


@dataclass(frozen=True)
class Ridge:
    """How lengths are spread: `shares[i]` of them lie from `edges[i]` to below `edges[i + 1]`."""

    key: str
    label: str
    shares: Sequence[float]
    median: float


def ridges(rows: Sequence[Ridge], edges: Sequence[float], unit: str, title: str) -> str:
    """The paper's figure 5: one hill for each kind of passage over a common axis of lengths, its median marked."""
    left, right, top, step = _label_room([row.label for row in rows]), 452, 16, 44
    used = [place for place in range(len(edges) - 1) if any(row.shares[place] for row in rows)]
    first, last = used[0], used[-1] + 1
    x = svg.linear(first, last, left, right)
    floor = top + step * len(rows)
    highest = max(max(row.shares) for row in rows)
    ticks = _thinned_ticks([(x(place), f"{edges[place]:g}") for place in range(first, last + 1)], 34)
    parts = [_vertical(at, top, floor, label) for at, label in ticks]
    for number, row in enumerate(rows):
        base = top + step * (number + 1)
        outline = [(x(first), float(base))]
        for place in range(first, last):
            up = base - 36 * row.shares[place] / highest
            outline += [(x(place), up), (x(place + 1), up)]
        parts.append(svg.path([*outline, (x(last), float(base))], f"hill {row.key}"))
        middle = x(_place_of(row.median, edges, first, last))
        parts.append(svg.line(middle, base - 36, middle, base, f"median {row.key}"))
        parts.append(svg.text(left - 12, base - 8, fitted(row.label, left - 16), "name", "end"))
        words = svg.tag("tspan", f"{row.median:,.0f}", data_length=f"{title}/{row.label}/median")
        parts.append(svg.tag("text", words, x=right + 10, y=base - 8, class_="row"))
    parts.append(svg.text((left + right) / 2, floor + 36, unit, "tick", "middle"))
    parts.append(svg.text(right + 10, top - 4, "median", "tick"))
    return svg.picture(528, floor + 44, "".join(parts), title)


def difference_bars(differences: Sequence[float], title: str) -> str:
    """One bar for each query, from dense's greatest win to BM25's; beyond 300 queries a bar is the mean of several."""
    width, left, top, bottom, right = 528, 42, 10, 220, 520
    bars = _thinned(sorted(differences, reverse=True), 300)
    y = svg.linear(-1, 1, bottom, top)
    thickness = (right - left) / len(bars)
    parts = [_horizontal(y(tick), left, right, f"{tick:+g}" if tick else "0") for tick in (-1, -0.5, 0, 0.5, 1)]
    for place, value in enumerate(bars):
        upper, lower = y(max(value, 0)), y(min(value, 0))
        parts.append(
            svg.tag(
                "rect",
                x=left + place * thickness,
                y=upper,
                width=max(thickness * 0.86, 0.6),
                height=lower - upper,
                class_="bar " + ("dense" if value > 0 else "bm25"),
            )
        )
    parts.append(svg.line(left, y(0), right, y(0), "zero"))
    # Each label stands on the side of the line that its bars leave empty.
    parts.append(svg.text(left + 4, y(0) + 20, "▲ dense better", "name dense-text"))
    parts.append(svg.text(right, y(0) - 10, "▼ BM25 better", "name bm25-text", "end"))
    return svg.picture(width, bottom + 12, "".join(parts), title)


def agreement(dense: Sequence[float], bm25: Sequence[float], title: str) -> str:
    """Queries by both systems' values in a grid of tenths; the area of a disc is the number of queries."""
    size, left, top = 300, 52, 10
    bottom, right = top + size, left + size
    counts = Counter((round(d * 10), round(b * 10)) for d, b in zip(dense, bm25, strict=True))
    x, y = svg.linear(-0.6, 10.6, left, right), svg.linear(-0.6, 10.6, bottom, top)
    largest = max(counts.values())
    parts = [_vertical(x(tick), top, bottom, f"{tick / 10:g}") for tick in (0, 5, 10)]
    parts += [_horizontal(y(tick), left, right, f"{tick / 10:g}") for tick in (0, 5, 10)]
    parts.append(svg.line(x(-0.6), y(-0.6), x(10.6), y(10.6), "diagonal"))
    for (d, b), count in sorted(counts.items()):
        kind = "dense" if d > b else "bm25" if b > d else "equal"
        hint = svg.tag("title", f"{count:,} queries: dense about {d / 10:g}, BM25 about {b / 10:g}")
        radius = max(1.6, 13 * (count / largest) ** 0.5)
        parts.append(svg.tag("circle", hint, cx=x(b), cy=y(d), r=radius, class_=f"disc {kind}"))
    parts.append(svg.text((left + right) / 2, bottom + 36, "BM25", "name bm25-text", "middle"))
    turned = f"rotate(-90 14 {(top + bottom) / 2})"
    parts.append(
        svg.tag(
            "text",
            "dense",
            x=14,
            y=(top + bottom) / 2,
            class_="name dense-text",
            text_anchor="middle",
            transform=turned,
        )
    )
    return svg.picture(right + 10, bottom + 44, "".join(parts), title)


def weight_curve(curve: Sequence[tuple[float, float]], chosen: float, title: str) -> str:
    """nDCG@10 on the development split by the dense share, with the chosen share marked."""
    left, right, top, bottom = 52, 342, 12, 262
    low, high = _padded([figure for _, figure in curve])
    x, y = svg.linear(0, 1, left, right), svg.linear(low, high, bottom, top)
    parts = [_horizontal(y(tick), left, right, svg.short(tick)) for tick in svg.ticks(low, high, 4)]
    parts += [_vertical(x(tick), bottom, bottom, f"{tick:g}") for tick in (0, 0.25, 0.5, 0.75, 1)]
    parts.append(svg.path([(x(weight), y(figure)) for weight, figure in curve], "trace fused"))
    figure = dict(curve)[chosen]
    parts.append(svg.line(x(chosen), y(figure), x(chosen), bottom, "diagonal"))
    parts.append(svg.tag("circle", cx=x(chosen), cy=y(figure), r=6.5, class_="dot fused"))
    parts.append(svg.text(left, bottom + 38, "BM25 alone", "name bm25-text"))
    parts.append(svg.text(right, bottom + 38, "dense alone", "name dense-text", "end"))
    return svg.picture(right + 18, bottom + 46, "".join(parts), title)


def training_curve(points: Sequence[tuple[float, float]], title: str) -> str:
    """Every value faint, a running mean over a twentieth of them strong."""
    left, right, top, bottom = 46, 352, 10, 160
    steps, values = [step for step, _ in points], [value for _, value in points]
    (low, high), x = _padded(values), svg.linear(steps[0], steps[-1], left, right)
    y = svg.linear(low, high, bottom, top)
    drawn = _every(points, 600)
    smooth = _every(list(zip(steps, _running_mean(values, len(values) // 40), strict=True)), 600)
    parts = [_horizontal(y(tick), left, right, svg.short(tick)) for tick in svg.ticks(low, high, 4)]
    parts += [_vertical(x(tick), bottom, bottom, svg.short(tick)) for tick in svg.ticks(steps[0], steps[-1], 4)]
    parts.append(svg.path([(x(step), y(value)) for step, value in drawn], "trace faint"))
    parts.append(svg.path([(x(step), y(value)) for step, value in smooth], "trace strong"))
    return svg.picture(right + 12, bottom + 24, "".join(parts), title)


def _vertical(x: float, top: float, bottom: float, label: str) -> str:
    return svg.line(x, top, x, bottom, "grid") + svg.text(x, bottom + 17, label, "tick", "middle")


def _horizontal(y: float, left: float, right: float, label: str) -> str:
    return svg.line(left, y, right, y, "grid") + svg.text(left - 7, y + 4, label, "tick", "end")


def _label_room(labels: Sequence[str]) -> float:
    """Where the drawing may begin so that the labels to its left are whole, up to a third of the picture."""
    return min(200.0, max(92.0, max(map(label_width, labels)) + 18))


def _size_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Decades and their halves between the smallest and the largest model, of parameters as people say them."""
    units = ((10**9, "B"), (10**6, "M"), (10**3, "k"), (1, ""))
    found = []
    for exponent in range(int(low) - 1, int(high) + 2):
        for factor in (1, 3):
            value = factor * 10**exponent
            if low - 0.1 <= math.log10(value) <= high + 0.1:
                scale, unit = next((scale, unit) for scale, unit in units if value >= scale)
                found.append((math.log10(value), f"{value / scale:g} {unit}".strip()))
    return found


def _apart(wanted: Sequence[float], distance: float, top: float, bottom: float) -> list[float]:
    """Places near the wanted ones, in their order, that are at least `distance` apart."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = [0.0] * len(wanted)
    at = top - distance
    for index in order:
        at = places[index] = max(wanted[index], at + distance)
    # What was pushed out below moves up again, and pushes what is above it.
    at = max(bottom, top + distance * (len(wanted) - 1)) + distance
    for index in reversed(order):
        at = places[index] = min(places[index], at - distance)
    return places


def _place_of(value: float, edges: Sequence[float], first: int, last: int) -> float:
    """Where a value lies between the edges, counted in bins."""
    for place in range(first, last):
        if value < edges[place + 1]:
            return place + max(0.0, (value - edges[place]) / (edges[place + 1] - edges[place]))
    return float(last)


def _thinned_ticks(ticks: Sequence[tuple[float, str]], distance: float) -> list[tuple[float, str]]:
    kept: list[tuple[float, str]] = []
    for at, label in ticks:
        if not kept or at - kept[-1][0] >= distance:
            kept.append((at, label))
    return kept


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """At most `most` values, each the mean of a run of neighbours."""
    count = min(most, len(values))
    edges = [len(values) * k // count for k in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]


def _every(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    step = max(1, len(points) // most)
    return [*points[::step], points[-1]]


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of `width` values to either side, of as many as there are near the ends."""
    sums = [0.0, *accumulate(values)]
    spans = [(max(0, place - width), min(len(values), place + width + 1)) for place in range(len(values))]
    return [(sums[last] - sums[first]) / (last - first) for first, last in spans]
