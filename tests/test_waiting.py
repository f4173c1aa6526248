import pytest

from largede import waiting
from largede.waiting import wait_until


def test_it_returns_when_ready_and_says_meanwhile_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "SAY_EVERY_S", 0.05)
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.01)
    looks = iter(range(40))
    wait_until(lambda: next(looks) == 30, "the shards of process 1")
    said = capsys.readouterr().err.splitlines()
    assert len(said) >= 2 and said[0].startswith("waiting for the shards of process 1 since 0:00:0")
    assert next(looks) == 31


def test_what_is_there_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    wait_until(lambda: True, "nothing")
    assert capsys.readouterr().err == ""
