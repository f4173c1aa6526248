import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_tools.cli import main
from data_tools.termination import raising_on_sigterm, with_processes
from largede.verbs import Terminated

PAIRS, LINES = 2, 120_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, each more than a second's work for any verb."""
    folder = tmp_path_factory.mktemp("terminated")
    for part in range(PAIRS):
        lines = (
            json.dumps({"query": f"question number {part} {row}", "positive": f"The answer is {row} apples. " * 4})
            for row in range(LINES)
        )
        (folder / f"part-{part:05d}.jsonl").write_text("\n".join(lines))
    return folder


def command_of(verb: str, folder: Path, out: Path, workers: int) -> list[str]:
    words = ["pairs", "jsonl"] if verb == "pairs" else [verb]
    return [*words, *map(str, sorted(folder.iterdir())), "--out", str(out), "--workers", str(workers)]


@pytest.mark.parametrize(
    ("verb", "workers", "at_work"),
    [
        ("pairs", 2, "stage-0/.input-*/.part-*"),
        ("pairs", 1, "stage-0/.input-*/.part-*"),
        ("shard", 2, "read/.batch-*"),
        ("filter", 2, "results/.part-*"),
    ],
)
def test_a_terminated_command_says_so_in_one_line_and_leaves_nothing_unfinished(
    verb: str, workers: int, at_work: str, folder: Path, tmp_path: Path
) -> None:
    words = command_of(verb, folder, tmp_path / "out", workers)
    process = subprocess.Popen([sys.executable, "-m", "data_tools.cli", *words], stderr=subprocess.PIPE, text=True)
    while len(list((tmp_path / "out.work").glob(at_work))) < workers:
        assert process.poll() is None, "finished before it could be terminated"
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    # The pipe is closed when no process of the command is left.
    said = process.communicate(timeout=60)[1].splitlines()
    assert (process.returncode, said[-1]) == (143, f"largede-data {verb}: terminated")
    assert time.monotonic() - sent < 10
    assert not [line for line in said if "leaked" in line or "Traceback" in line]
    assert not list(tmp_path.iterdir())  # no task was finished


def test_after_the_command_the_signal_does_what_it_did_before(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["filter", "nowhere", "--out", "nothing"]) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_comes_while_processes_are_used_is_raised_at_a_known_place() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []
    try:
        with pytest.raises(Terminated), raising_on_sigterm(), with_processes() as started:
            signal.raise_signal(signal.SIGTERM)
            seen.append("starting")
            started()
            seen.append("working")
        with pytest.raises(Terminated), raising_on_sigterm(), with_processes():
            signal.raise_signal(signal.SIGTERM)
            raise EOFError("from a server of processes that the signal ended as well")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["starting"]
