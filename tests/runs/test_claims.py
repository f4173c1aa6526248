"""Who is at work on something: one of many gets it, the dead lose it, the living keep it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from made_claims import holder_elsewhere

from largede.runs import claims
from largede.runs.claims import UNKNOWN, Claim, holder_of, is_held

HOLD = """
import sys, time
from pathlib import Path
from largede.runs.claims import Claim
claim = Claim(Path(sys.argv[1]))
print("busy" if claim.take() else "mine", flush=True)
time.sleep(60)
"""


def holding_process(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    return process


def test_of_many_processes_one_gets_the_claim(tmp_path: Path) -> None:
    """They start at once, and a claim whose holder was killed lies there already: all of them want to move it aside."""
    path = tmp_path / "claim"
    first = holding_process(path)
    first.kill()
    first.wait()
    many = [
        subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    try:
        said = [process.stdout.readline().strip() for process in many if process.stdout]
        assert sorted(said) == ["busy"] * 5 + ["mine"]
        winner = holder_of(path)
        assert winner is not None and winner.pid == many[said.index("mine")].pid
    finally:
        for process in many:
            process.kill()
            process.wait()
    assert [p.name for p in tmp_path.iterdir()] == ["claim"]


def test_a_living_process_keeps_its_claim_even_when_it_is_suspended(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    process = holding_process(path)
    try:
        process.send_signal(signal.SIGSTOP)
        os.utime(path, (0, 0))  # silent for decades; on its own machine that says nothing
        holder = Claim(path).take()
        assert holder is not None and holder.pid == process.pid and str(process.pid) in holder.words()
        assert is_held(path)
    finally:
        process.kill()
        process.wait()
    assert not is_held(path)
    claim = Claim(path)
    assert claim.take() is None
    claim.release()
    assert not path.exists()


def test_a_holder_on_another_machine_is_judged_by_its_silence(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    there = holder_elsewhere(path, claims.SILENT_S - 20)
    assert Claim(path).take() == there
    os.utime(path, (time.time() - claims.SILENT_S - 20, time.time() - claims.SILENT_S - 20))
    claim = Claim(path)
    assert claim.take() is None
    claim.release()


def test_a_number_used_again_by_another_process_does_not_keep_a_claim(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    Claim(path).take()
    held = holder_of(path)
    assert held is not None
    path.write_text(json.dumps(asdict(replace(held, process_started="1"))))
    assert Claim(path).take() is None


def test_a_claim_that_says_nothing_counts_until_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    path.touch()
    assert Claim(path).take() == UNKNOWN
    os.utime(path, (0, 0))
    assert Claim(path).take() is None


def test_who_comes_back_and_finds_the_claim_taken_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.02)
    beats: list[float] = []
    claim = Claim(tmp_path / "claim", beat=lambda: beats.append(time.time()))
    claim.take()
    os.utime(claim.path, (0, 0))
    wait_for(lambda: claim.path.stat().st_mtime > 1 and len(beats) > 2)
    assert not claim.lost
    other = replace(holder_of(claim.path) or UNKNOWN, token="of another")
    claim.path.write_text(json.dumps(asdict(other)))
    wait_for(lambda: claim.lost)
    claim.release()
    assert holder_of(claim.path) == other  # what is not ours is not removed


def test_a_claim_removed_by_hand_is_taken_again_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.02)
    said: list[str] = []
    beats: list[float] = []
    claim = Claim(tmp_path / "claim", beat=lambda: beats.append(time.time()), say=said.append)
    claim.take()
    claim.path.unlink()
    wait_for(lambda: said and len(beats) > 5)
    assert not claim.lost and is_held(claim.path)
    assert len(said) == 1 and "was removed" in said[0]
    claim.release()
    assert not claim.path.exists()


def test_who_was_silent_for_long_and_finds_no_claim_knows_that_another_may_have_had_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.02)
    monkeypatch.setattr(claims, "SILENT_S", 0.1)  # shorter than a second look takes
    claim = Claim(tmp_path / "claim")
    claim.take()
    claim.path.unlink()
    wait_for(lambda: claim.lost)
    assert not claim.path.exists()


def test_a_beat_that_fails_is_remembered_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.02)

    def full_disk() -> None:
        raise OSError(28, "No space left on device")

    claim = Claim(tmp_path / "claim", beat=full_disk)
    claim.take()
    wait_for(lambda: "No space left" in claim.trouble)
    assert not claim.lost
    claim.release()


def wait_for(condition: object, at_most_s: float = 5.0) -> None:
    end = time.monotonic() + at_most_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
