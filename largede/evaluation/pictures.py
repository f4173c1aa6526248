"""The pictures of TensorBoard's image tab, as PNG: how the checkpoints did, how scores are spread."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from largede.evaluation.evaluated import Evaluated, best_of

DENSE, BM25, FUSED, QUIET = "#2f6fdb", "#c2571a", "#2a8a57", "#8a94a3"
COLOURS = {"dense": DENSE, "bm25": BM25, "fused": FUSED}


def curve_png(records: Sequence[Evaluated], measure: str = "ndcg@10") -> bytes:
    """The measure of every system by step, a panel for each collection; the best checkpoint has a ring."""
    collections = list(records[-1].figures)
    figure, panels = _panels(len(collections))
    best = best_of(records)
    for name, panel in zip(collections, panels, strict=True):
        known = [record for record in records if name in record.figures]
        for system in known[-1].figures[name]:
            points = [(r.step, r.figures[name][system][measure]) for r in known if system in r.figures[name]]
            panel.plot(*zip(*points, strict=True), color=COLOURS.get(system, QUIET), marker=".", label=system)
        if best is not None and name in best.figures:
            panel.plot(best.step, best.figures[name]["dense"][measure], "o", ms=12, mfc="none", color=DENSE)
        panel.set(title=name, xlabel="step", ylabel="nDCG@10" if measure == "ndcg@10" else measure, ylim=(0, None))
        panel.legend(frameon=False)
    return _png(figure)


def scores_png(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """How scores of relevant passages and of each query's best other passage are spread, a panel a collection."""
    figure, panels = _panels(len(scores))
    for (name, spread), panel in zip(scores.items(), panels, strict=True):
        for kind, colour in (("relevant", DENSE), ("other", BM25)):
            label = "relevant passages" if kind == "relevant" else "best other passage of each query"
            panel.stairs(spread[kind], spread["edges"], fill=True, alpha=0.55, color=colour, label=label)
        panel.set(title=name, xlabel="score", ylabel="passages")
        panel.legend(frameon=False)
    return _png(figure)


def _panels(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(5 * columns, 3.4 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[count:]:
        panel.remove()
    for panel in panels[:count]:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#e3e7ec")
        panel.set_axisbelow(True)
    return figure, panels[:count]


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    return stream.getvalue()
