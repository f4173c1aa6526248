"""What becomes of output that nobody reads: of a run it is dropped, of a table it ends the program quietly."""

import os
import sys
from pathlib import Path

import pytest

from largede.cli import main
from largede.errors import MachineError
from largede.unread import Lenient, going_on_unread


def stream_without_reader() -> "os._wrap_close":
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)  # type: ignore[return-value]


def test_lines_after_the_reader_has_left_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    with stream_without_reader() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(BrokenPipeError):
            print("a line", flush=True)
        with going_on_unread():
            for number in range(2000):
                print(f"line {number}")
        assert sys.stdout is stream


def test_lines_are_lost_on_a_full_disk_and_those_after_it_are_not(tmp_path: Path) -> None:
    with open("/dev/full", "w", buffering=1) as full:
        lenient = Lenient(full)
        print("a line", file=lenient, flush=True)
        with (tmp_path / "log").open("w") as log:
            os.dup2(log.fileno(), full.fileno())  # room again
        print("the next", file=lenient, flush=True)
    assert "the next\n" in (tmp_path / "log").read_text()


def test_another_pipe_that_breaks_is_an_error() -> None:
    with pytest.raises(MachineError, match="has ended"), going_on_unread():
        raise BrokenPipeError("of a loader process")


def test_the_table_of_runs_ends_quietly_when_its_reader_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stream_without_reader() as stream, open(os.devnull, "w") as errors:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", errors)
        assert main(["runs", str(tmp_path)]) == 0
        assert errors.closed, "nothing more is said"
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
