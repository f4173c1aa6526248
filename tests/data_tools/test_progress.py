import time

import pytest

from data_tools import progress
from data_tools.progress import ByteProgress, duration, progress_line


def test_a_line_says_how_far_how_fast_and_how_long_yet() -> None:
    assert progress_line(250_000_000, 1_000_000_000, 10.0) == "250 of 1,000 MB, 25.0 MB/s, 30 s left"
    assert progress_line(0, 1_000_000_000, 10.0) == "0 of 1,000 MB, 0.0 MB/s"


def test_small_totals_have_small_units_and_no_time_is_left_when_all_is_read() -> None:
    assert progress_line(4_000, 16_000, 2.0) == "4 of 16 kB, 2.0 kB/s, 6 s left"
    assert progress_line(10, 100, 10.0) == "10 of 100 bytes, 1.0 bytes/s, 1 min 30 s left"
    assert progress_line(30_000, 16_000, 10.0) == "16 of 16 kB, 3.0 kB/s"
    assert progress_line(0, 0, 10.0) == progress_line(5, 0, 10.0) == "under way"


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (59.7, "1 min 0 s"), (7380, "2 h 3 min")])
def test_a_duration_has_two_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_lines_appear_while_the_work_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.01)
    with ByteProgress("reading", 10**6, lambda: 500_000):
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith("reading: ") and " of 1 MB" in line for line in lines)
