"""The pictures of TensorBoard's image tab, as PNG: how the checkpoints did, how scores are spread."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from largede.runs.evaluated import Evaluated, best_of

DENSE, BM25, FUSED, QUIET = "#2f6fdb", "#c2571a", "#2a8a57", "#8a94a3"
COLOURS = {"dense": DENSE, "bm25": BM25, "fused": FUSED}

ROOM = 1.25
"""The upper end of an axis over its highest point: a ring around that, and the legend beside it, stay whole."""


def curve_png(records: Sequence[Evaluated], collection: str, measure: str = "ndcg@10") -> bytes:
    """The measure of every system on one collection by step; the best checkpoint has a ring."""
    figure, panel = _panel()
    draw_curves(panel, records, collection, measure)
    return _png(figure)


def draw_curves(panel: Any, records: Sequence[Evaluated], collection: str, measure: str) -> None:
    known = [record for record in records if collection in record.figures]
    highest = 0.0
    for system in known[-1].figures[collection]:
        points = [(r.step, r.figures[collection][system][measure]) for r in known if system in r.figures[collection]]
        panel.plot(*zip(*points, strict=True), color=COLOURS.get(system, QUIET), marker=".", label=system)
        highest = max(highest, *(value for _, value in points))
    best = best_of(known)
    if best is not None:
        panel.plot(best.step, best.figures[collection]["dense"][measure], "o", ms=12, mfc="none", color=DENSE)
    panel.set(title=collection, xlabel="step", ylabel=measure.replace("ndcg", "nDCG"), ylim=(0, ROOM * highest or 1.0))
    panel.legend(frameon=False)


def scores_png(spread: Mapping[str, Sequence[float]], collection: str) -> bytes:
    """How scores of relevant passages and of each query's best other passage are spread, as shares of each."""
    figure, panel = _panel()
    for kind, label, colour in (("relevant", "relevant", DENSE), ("other", "best other of each query", BM25)):
        total = sum(spread[kind]) or 1.0
        shares = [count / total for count in spread[kind]]
        panel.stairs(shares, spread["edges"], fill=True, alpha=0.55, color=colour, label=label)
    panel.set(title=collection, xlabel="score", ylabel="share of passages")
    panel.legend(frameon=False, loc="upper left")
    return _png(figure)


def _panel() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    panel = figure.subplots()
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color="#e3e7ec")
    panel.set_axisbelow(True)
    return figure, panel


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return stream.getvalue()
