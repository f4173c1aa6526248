"""Training curves come back from TensorBoard's event files."""

from pathlib import Path

import pytest

from largede.errors import DataError
from largede.evaluation.report.curves import read_curves


def write_events(folder: Path, points: list[tuple[int, float]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder))
    for step, value in points:
        summary = Summary(value=[Summary.Value(tag="loss", simple_value=value)])
        writer.add_event(Event(step=step, wall_time=float(step), summary=summary))
    writer.close()


def test_a_step_done_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    write_events(tmp_path / "a", [(1, 4.0), (2, 3.0), (3, 2.5)])
    write_events(tmp_path / "b", [(3, 2.0), (4, 1.0)])
    assert read_curves(tmp_path) == {"loss": [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]}


def test_a_folder_without_curves(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no TensorBoard scalars"):
        read_curves(tmp_path)
