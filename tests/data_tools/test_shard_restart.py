"""What a stopped, killed or crowded run of `shard` leaves, and that the next one goes on with it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shard_sets import all_places, write_pairs

from data_tools import pairs, read_pairs
from data_tools.cli import main
from data_tools.shard import MADE_FROM, shard
from data_tools.shard_settings import Machine, ShardSettings
from largede.errors import DataError
from largede.streams.index import ShardIndex
from largede.streams.read import BlockReader

SETTINGS = ShardSettings(shard_pairs=40, block_pairs=16, seed=5)
ONE = Machine(workers=1)
# What a user's terminal would run, with batches and work per process small enough for a test.
COMMAND = """
import sys
from data_tools import read_pairs, shard_settings
read_pairs.BATCH_BYTES = shard_settings.PROCESS_BYTES = 1
from data_tools.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


class Stopped(BaseException):
    """Stands for whatever may end a run."""


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_pairs, "BATCH_BYTES", 1)


def inputs_in(folder: Path, count: int = 3, pairs: int = 60) -> list[Path]:
    paths = [folder / f"part-{number}.jsonl" for number in range(count)]
    for number, path in enumerate(paths):
        write_pairs(path, pairs + number)
    return paths


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def stop_at(monkeypatch: pytest.MonkeyPatch, renames: int) -> None:
    """The run ends instead of the rename of that number; every file and folder appears by one."""
    replace, left = os.replace, iter(range(renames))

    def counted(source: object, target: object) -> None:
        if next(left, None) is None:
            raise Stopped
        replace(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", counted)


def test_stopped_at_any_rename_the_next_run_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_in(tmp_path, count=2)
    shard(inputs, tmp_path / "whole", SETTINGS, ONE)
    whole, out = contents(tmp_path / "whole"), tmp_path / "out"
    for renames in range(1000):
        with monkeypatch.context() as patch:
            stop_at(patch, renames)
            try:
                shard(inputs, out, SETTINGS, ONE)
                break
            except Stopped:
                assert not out.exists() or contents(out) == whole
        shard(inputs, out, SETTINGS, ONE)
        assert contents(out) == whole
        assert not (tmp_path / "out.work").exists()
        shutil.rmtree(out)
    assert renames > 30


def test_stopped_again_and_again_it_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_in(tmp_path)
    shard(inputs, tmp_path / "whole", SETTINGS, ONE)
    runs = 0
    while not (tmp_path / "out").exists():
        runs += 1
        with monkeypatch.context() as patch:
            stop_at(patch, 7)
            try:
                shard(inputs, tmp_path / "out", SETTINGS, ONE)
            except Stopped:
                continue
    assert runs > 5
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def start(folder: Path, inputs: list[Path], workers: int = 2) -> subprocess.Popen[bytes]:
    flags = ["--out", str(folder), "--shard-pairs", "700", "--block-pairs", "64", "--workers", str(workers)]
    words = [sys.executable, "-c", COMMAND, "shard", *map(str, inputs), *flags]
    return subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> None:
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error.decode()


def test_killed_at_random_moments_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path) -> None:
    inputs = inputs_in(tmp_path, count=4, pairs=1500)
    began = time.monotonic()
    finish(start(tmp_path / "whole", inputs))
    seconds = time.monotonic() - began
    chance, kills = random.Random(11), 0
    while kills < 10:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        process = start(tmp_path / "out", inputs, workers=1 + kills % 2)
        time.sleep(chance.uniform(0.15, 0.9) * seconds)
        if process.poll() is None:
            # Half of the time only the first process; its workers have to notice by themselves.
            (os.killpg if chance.random() < 0.5 else os.kill)(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    finish(start(tmp_path / "out", inputs, workers=1))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    index = ShardIndex.load(tmp_path / "out")
    queries = [pair.query for pair in BlockReader(index).pairs(all_places(index))]
    assert sorted(queries) == sorted(f"question {i}" for number in range(4) for i in range(1500 + number))
    assert not (tmp_path / "out.work").exists()


def stopped_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int) -> list[Path]:
    inputs = inputs_in(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, renames)
        with pytest.raises(Stopped):
            shard(inputs, tmp_path / "out", SETTINGS, ONE)
    assert (tmp_path / "out.work").exists()
    return inputs


def test_finished_batches_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = stopped_run(tmp_path, monkeypatch, 14)
    read: list[str] = []
    lines_of = pairs.lines_of

    def noted(path: Path) -> Iterator[bytes]:
        read.append(path.name)
        return lines_of(path)

    monkeypatch.setattr(pairs, "lines_of", noted)
    shard(inputs, tmp_path / "out", SETTINGS, ONE)
    assert read == ["part-2.jsonl"]


@pytest.mark.parametrize("renames", [14, 40])
def test_only_an_input_that_changed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    inputs = stopped_run(tmp_path, monkeypatch, renames)
    write_pairs(inputs[0], 77)
    shard(inputs, tmp_path / "out", SETTINGS, ONE)
    shard(inputs, tmp_path / "afresh", SETTINGS, ONE)
    assert contents(tmp_path / "out") == contents(tmp_path / "afresh")


@pytest.mark.parametrize("change", ["seed", "inputs"])
def test_work_of_another_run_is_refused_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    inputs = stopped_run(tmp_path, monkeypatch, 14)
    before = sorted(tmp_path.rglob("*"))
    settings = ShardSettings(40, 16, seed=6) if change == "seed" else SETTINGS
    named = "seed is 6, not 5" if change == "seed" else "2 inputs, not 3"
    with pytest.raises(DataError, match=f"out.work was left by a run with other inputs or settings: {named}"):
        shard(inputs if change == "seed" else inputs[:2], tmp_path / "out", settings, ONE)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_limit_of_bad_lines_may_be_raised_and_the_work_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = inputs_in(tmp_path)
    for number, line in ((1, b"{}\n"), (2, b"not JSON\n"), (2, b'{"query": "q", "positive": 7}\n')):
        inputs[number].write_bytes(inputs[number].read_bytes() + line)
    command = ["shard", *map(str, inputs), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 2
    assert "line 62 has no query, or an empty one" in capsys.readouterr().err
    assert main([*command, "--skip-bad", "2"]) == 2
    error = capsys.readouterr().err
    assert "3 bad lines: has no query, or an empty one, 1 time (such as" in error and "is not JSON, 1 time" in error
    assert main([*command, "--skip-bad", "3"]) == 0
    assert "183 pairs in 1 shard," in (said := capsys.readouterr().out) and "3 bad lines passed over" in said
    recorded = json.loads((tmp_path / "out" / MADE_FROM).read_text())["bad_lines"]
    assert {reason: entry["count"] for reason, entry in recorded.items()} == {
        "has no query, or an empty one": 1,
        'has a number under "positive"': 1,
        "is not JSON": 1,
    }


def test_two_runs_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_in(tmp_path)
    read = pairs.lines_of

    def meanwhile(path: Path) -> Iterator[bytes]:
        with pytest.raises(DataError, match="another process is writing"):
            shard(inputs, tmp_path / "out", SETTINGS, ONE)
        return read(path)

    monkeypatch.setattr(pairs, "lines_of", meanwhile)
    assert shard(inputs, tmp_path / "out", SETTINGS, ONE).written


def test_an_input_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_in(tmp_path)
    read = pairs.lines_of

    def growing(path: Path) -> Iterator[bytes]:
        yield from read(path)
        with path.open("ab") as file:
            file.write(b"\n")

    monkeypatch.setattr(pairs, "lines_of", growing)
    with pytest.raises(DataError, match="part-0.jsonl changed while it was read"):
        shard(inputs, tmp_path / "out", SETTINGS, ONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in inputs]


def test_a_full_disk_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        inputs = inputs_in(tmp_path, count=6, pairs=6000)
        words = [
            sys.executable,
            "-c",
            COMMAND,
            "shard",
            *map(str, inputs),
            "--out",
            str(disk / "out"),
            "--workers",
            "2",
        ]
        full = subprocess.run(words, capture_output=True, text=True, check=False)
        assert full.returncode == 2
        assert f"no room left to write {disk}/out.work" in full.stderr and "Traceback" not in full.stderr
        assert [path.name for path in disk.iterdir()] == ["out.work"]
        assert any(disk.glob("out.work/read/batch-*"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert subprocess.run(words, capture_output=True, check=False).returncode == 0
        shard(inputs, tmp_path / "whole", ShardSettings(), ONE)
        assert contents(disk / "out") == contents(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
