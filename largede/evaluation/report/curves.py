"""Training curves read back from a run's TensorBoard event files."""

from pathlib import Path

from largede.errors import DataError
from largede.runs.files import FIGURES, line_of_figures

Curves = dict[str, list[tuple[float, float]]]
"""Tag to (step, value) pairs, steps ascending."""


def read_curves(folder: Path) -> Curves:
    """Tag to (step, value) pairs of every scalar below `folder`. Raises DataError when there is none."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    curves: dict[str, dict[float, float]] = {}
    for events in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        found = EventAccumulator(str(events), size_guidance={SCALARS: 0})
        found.Reload()
        for tag in found.Tags()["scalars"]:
            # A step that was done again after a resume counts once, as it was done last.
            curves.setdefault(tag, {}).update({event.step: event.value for event in found.Scalars(tag)})
    if not curves:
        raise DataError(
            f"{folder} holds no TensorBoard scalars",
            expected="the folder of a training run",
            mend="check --training, or leave it out",
        )
    return {tag: sorted(points.items()) for tag, points in curves.items()}


def read_figures(run: Path) -> Curves:
    """The same from the lines that a run writes beside its event files: much faster; {} where there are none."""
    path, curves = run / FIGURES, dict[str, dict[float, float]]()
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        figures = line_of_figures(line) or {}
        step, _ = figures.pop("step", None), figures.pop("time_s", None)
        for tag, value in figures.items():
            curves.setdefault(tag, {})[step] = value
    return {tag: sorted(points.items()) for tag, points in curves.items()}
