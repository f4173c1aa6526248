"""What a run writes for people to look at: a disk that fails rank 0 ends all ranks together, or none."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ranks import run_on_ranks

from largede.errors import LargedeError
from largede.training import monitor as monitor_module
from largede.training.liveness.lag import Lag
from largede.training.monitor import Monitor

FULL = OSError(28, "No space left on device")
BROKEN = OSError(5, "Input/output error")


def made_monitor(folder: Path, say: Callable[[str], None], *, goes_on: bool) -> Monitor:
    return Monitor(folder, 10, 1, say, start=3, lag=Lag(None), goes_on_when_full=goes_on)


class FailingWriter:
    """Stands for one whose disk fails; only rank 0 has it."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        return self.fail

    def fail(self, *_: object) -> None:
        raise self.error


def error_of(work: Callable[[], object]) -> str:
    try:
        work()
    except LargedeError as error:
        return f"{type(error).__name__}: {error.given}"
    return "no error"


def failing(folder: Path, error: OSError, *, goes_on: bool) -> tuple[dict[str, str], list[str]]:
    """What each rank meets, and what it was told, when every write fails on rank 0."""
    lines: list[str] = []
    monitor = made_monitor(folder, lines.append, goes_on=goes_on)

    def broken(work: Callable[[], object]) -> str:
        monitor.writer = FailingWriter(error)
        return error_of(work)

    met = {
        "remark": broken(lambda: monitor.remark(4, "words")),
        "rewind": broken(lambda: monitor.rewind(4, "words")),
        "close": broken(monitor.close),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor_module, "open_writer", lambda *_: FailingWriter(error).fail())
        met["open"] = error_of(lambda: made_monitor(folder / "unopened", lines.append, goes_on=goes_on))
    return met, lines


def opened_later(folder: Path) -> list[int]:
    """Room comes late: the points of steps that are done again must be forgotten nevertheless."""
    purged: list[int] = []
    original = monitor_module.open_writer

    def noting(place: Path, purge_step: int | None) -> Any:
        purged.append(purge_step or 0)
        if len(purged) == 1:
            raise FULL
        return original(place, purge_step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor_module, "open_writer", noting)
        monitor = made_monitor(folder, lambda line: None, goes_on=True)
        monitor.remark(4, "words")
        monitor.close()
    return purged


def traceback_of_the_thread(folder: Path) -> str:
    """What is printed when the thread of TensorBoard meets a full disk."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    monitor = made_monitor(folder, lambda line: None, goes_on=True)
    said = io.StringIO()

    def full(*_: object) -> None:
        raise FULL

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(RecordWriter, "write", full)
        monitor.remark(4, "words")
        monitor.remark(5, "words")
        monitor.close()
    return said.getvalue()


def story(folder: str) -> dict[str, Any]:
    path = Path(folder)
    return {
        "full, to stop": failing(path / "stop", FULL, goes_on=False),
        "full, to go on": failing(path / "go_on", FULL, goes_on=True),
        "broken": failing(path / "broken", BROKEN, goes_on=True),
        "opened later": opened_later(path / "later"),
        "thread": traceback_of_the_thread(path / "thread"),
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("monitors")
    return run_on_ranks(2, story, folder, str(folder))


@pytest.mark.parametrize(("what", "kind"), [("full, to stop", "NoRoomError"), ("broken", "MachineError")])
def test_what_fails_rank_0_fails_all_ranks_at_the_same_place(
    what: str, kind: str, answers: list[dict[str, Any]]
) -> None:
    for answer in answers:
        met, _ = answer[what]
        assert all(said.startswith(kind) for said in met.values()), met


def test_a_run_that_goes_on_does_so_from_its_first_moment_and_says_so(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        assert set(answer["full, to go on"][0].values()) == {"no error"}
    lost = [line for line in answers[0]["full, to go on"][1] if "figures are lost" in line]
    assert len(lost) == 2  # of two monitors


def test_points_of_steps_done_again_are_forgotten_although_room_came_late(answers: list[dict[str, Any]]) -> None:
    assert [answer["opened later"] for answer in answers] == [[4, 4], []]


def test_a_full_disk_prints_no_traceback(answers: list[dict[str, Any]]) -> None:
    assert [answer["thread"] for answer in answers] == ["", ""]
