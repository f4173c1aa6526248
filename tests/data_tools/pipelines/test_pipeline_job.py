import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pair_parts import part_files, read_lines, run_here, write_parts

from data_tools.cli import main
from data_tools.pipelines.dedup import DedupSettings, dedup_plan
from data_tools.pipelines.filters import FilterSettings, filter_plan
from data_tools.pipelines.report import html, markdown
from data_tools.pipelines.work import Work, only_one_command
from largede.errors import DataError
from largede.files import remove_folder

PLAN = filter_plan(FilterSettings())


def pair(number: int) -> dict[str, Any]:
    return {"query": f"question number {number}", "positive": f"The answer to question {number} is {number} apples."}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_parts(tmp_path / "pairs", [[pair(10 * part + row) for row in range(10)] for part in range(4)])


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of the last change of everything in the folder."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def test_a_second_run_does_nothing_and_says_so(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["filter", str(pairs), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 0
    before = state(tmp_path)
    assert main(command) == 0
    assert "is up to date: 40 pairs read, 40 kept, 0 removed" in capsys.readouterr().out
    assert state(tmp_path) == before


def test_a_work_folder_does_not_stay_and_logs_do(pairs: Path, tmp_path: Path) -> None:
    run_here(PLAN, pairs, tmp_path / "out")
    assert not (tmp_path / "out.work").exists()
    assert "Processing done" in (tmp_path / "out" / "logs" / "filter" / "logs" / "task_00003.log").read_text()


@pytest.mark.parametrize("plan", [PLAN, dedup_plan(DedupSettings(bands=3))], ids=["filter", "dedup"])
def test_one_task_at_a_time_and_three_write_the_same_bytes(plan: Any, pairs: Path, tmp_path: Path) -> None:
    reports = [run_here(plan, pairs, tmp_path / f"out{workers}", workers).report for workers in (1, 3)]
    one, three = (part_files(tmp_path / f"out{workers}") for workers in (1, 3))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in three]
    assert [{**report, "task_seconds": 0} for report in reports if report] == [
        {**report, "task_seconds": 0} for report in reversed(reports) if report
    ]


def test_plain_gzip_and_zstd_parts_and_single_files_are_read(pairs: Path, tmp_path: Path) -> None:
    import gzip

    lines = read_lines(pairs)
    (pairs / "part-00001.jsonl.zst").unlink()
    (pairs / "part-00001.jsonl").write_bytes(b"\n".join(lines[10:20]))
    (pairs / "part-00002.jsonl.zst").unlink()
    (pairs / "part-00002.jsonl.gz").write_bytes(gzip.compress(b"\r\n".join(lines[20:30])))
    (pairs / "pairs.json").write_text("{}")
    run_here(PLAN, pairs, tmp_path / "out")
    assert read_lines(tmp_path / "out") == lines
    run_here(PLAN, pairs / "part-00001.jsonl", tmp_path / "single")
    assert read_lines(tmp_path / "single") == lines[10:20]


def test_changed_inputs_and_settings_are_refused_and_named_when_finished(pairs: Path, tmp_path: Path) -> None:
    run_here(PLAN, pairs, tmp_path / "out")
    before = state(tmp_path / "out")
    with pytest.raises(DataError, match="other inputs or settings: min_query_words is 3, not 2\n"):
        run_here(filter_plan(FilterSettings(min_query_words=3)), pairs, tmp_path / "out")
    os.utime(pairs / "part-00000.jsonl.zst")
    with pytest.raises(DataError, match="other inputs or settings: input part-00000.jsonl.zst has changed\n"):
        run_here(PLAN, pairs, tmp_path / "out")
    assert state(tmp_path / "out") == before


def test_inputs_that_were_moved_are_the_same_inputs(pairs: Path, tmp_path: Path) -> None:
    run_here(PLAN, pairs, tmp_path / "out")
    assert not run_here(PLAN, pairs.rename(tmp_path / "elsewhere"), tmp_path / "out").done_now


def test_changed_inputs_are_refused_and_named_when_unfinished(pairs: Path, tmp_path: Path) -> None:
    broken = write_parts(tmp_path / "broken", [[pair(1)], [{"query": "no passage"}]])
    with pytest.raises(DataError, match="has no positive"):
        run_here(PLAN, broken, tmp_path / "out")
    with pytest.raises(DataError, match="unfinished work from other inputs or settings: 4 inputs, not 2; input part-0"):
        run_here(PLAN, pairs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_limit_of_bad_lines_may_be_raised_not_lowered(tmp_path: Path) -> None:
    broken = write_parts(tmp_path / "broken", [[pair(1)], [{"query": "no passage"}]])
    with pytest.raises(DataError, match="has no positive"):
        run_here(PLAN, broken, tmp_path / "out")
    assert run_here(filter_plan(FilterSettings(), skip_bad=1), broken, tmp_path / "out").done_now
    with pytest.raises(DataError, match="other inputs or settings: skip_bad is 0, not 1"):
        run_here(PLAN, broken, tmp_path / "out")


@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_failure_with_nothing_finished_another_command_is_taken(
    pairs: Path, tmp_path: Path, workers: int
) -> None:
    broken = write_parts(tmp_path / "broken", [[{"query": "no passage"}]] * 2)
    with pytest.raises(DataError, match="has no positive"):
        run_here(PLAN, broken, tmp_path / "out", workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "pairs"]
    assert run_here(PLAN, pairs, tmp_path / "out", workers).done_now


def test_settings_are_written_before_anything_else(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill at any file system call leaves what the next command recognises; here it fails at the first."""
    with monkeypatch.context() as patch:
        patch.setattr("data_tools.pipelines.job.write_json", None)
        with pytest.raises(TypeError):
            run_here(PLAN, pairs, tmp_path / "out")
    assert not (tmp_path / "out.work" / "results").exists()
    (tmp_path / "out.work" / "results").mkdir()  # as an earlier version left it
    assert run_here(PLAN, pairs, tmp_path / "out").done_now


def test_results_that_were_changed_or_are_not_ours_are_refused(pairs: Path, tmp_path: Path) -> None:
    run_here(PLAN, pairs, tmp_path / "out")
    (tmp_path / "out" / "part-00002.jsonl.zst").write_bytes(b"")
    with pytest.raises(DataError, match="part-00002.jsonl.zst has 0 bytes, not the"):
        run_here(PLAN, pairs, tmp_path / "out")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="holds no report.json"):
        run_here(PLAN, pairs, tmp_path / "foreign")
    (tmp_path / "foreign").rename(tmp_path / "new.work")
    with pytest.raises(DataError, match="was not made by this command"):
        run_here(PLAN, pairs, tmp_path / "new")


def test_finished_results_that_were_removed_are_made_again(pairs: Path, tmp_path: Path) -> None:
    run_here(PLAN, pairs, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    assert run_here(PLAN, pairs, tmp_path / "out").done_now
    assert read_lines(tmp_path / "out") == read_lines(pairs)


def test_tasks_that_are_done_are_not_done_again(pairs: Path, tmp_path: Path) -> None:
    """The third part fails; when it was mended in place, the first two keep what was written."""
    third = pairs / "part-00002.jsonl.zst"
    whole, times = third.read_bytes(), third.stat()
    third.write_bytes(whole[:-9] + b"\0" * 9)
    os.utime(third, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DataError, match="part-00002.jsonl.zst line 1 cannot be decompressed"):
        run_here(PLAN, pairs, tmp_path / "out")
    written = state(tmp_path / "out.work" / "results")
    assert sorted(Path(path).name for path in written) == ["part-00000.jsonl.zst", "part-00001.jsonl.zst"]
    third.write_bytes(whole)
    os.utime(third, ns=(times.st_atime_ns, times.st_mtime_ns))
    run_here(PLAN, pairs, tmp_path / "out")
    after = state(tmp_path / "out")
    for path, was in written.items():
        assert after[path.replace("out.work/results", "out")] == was
    assert read_lines(tmp_path / "out") == read_lines(pairs)


def test_what_a_killed_task_was_writing_does_not_come_into_the_results(pairs: Path, tmp_path: Path) -> None:
    broken = write_parts(tmp_path / "broken", [[pair(1)], [{"query": "no passage"}]])
    with pytest.raises(DataError, match="has no positive"):
        run_here(PLAN, broken, tmp_path / "out")
    (tmp_path / "out.work" / "results" / ".part-00001.jsonl.zst.77.partial").write_bytes(b"half")
    run_here(filter_plan(FilterSettings(), skip_bad=1), broken, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_and_writes_the_same_bytes(tmp_path: Path) -> None:
    rows = [[pair(number % 2000) for number in range(part * 1000, part * 1000 + 1000)] for part in range(4)]
    pairs = write_parts(tmp_path / "pairs", rows)
    command = [sys.executable, "-m", "data_tools.cli", "dedup", str(pairs), "--bands", "4", "--workers", "2", "--out"]
    began = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], capture_output=True, check=True)
    whole_s = time.monotonic() - began
    kills = 0
    for seconds in (0.35 * whole_s, 0.6 * whole_s, 0.85 * whole_s, 60):
        process = subprocess.Popen([*command, str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=20)  # its pipes are closed when all of its tasks have ended
            kills += 1
            assert not (tmp_path / "out").exists() or (tmp_path / "out" / "report.json").exists()
    assert kills > 0
    assert process.returncode == 0
    names = [path.name for path in part_files(tmp_path / "whole")]
    assert [path.name for path in part_files(tmp_path / "out")] == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_of_two_commands_at_once_one_works_and_the_other_finds_it_done(pairs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "data_tools.cli", "filter", str(pairs), "--out", str(tmp_path / "out")]
    started = [subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0] for process in started)
    assert [process.returncode for process in started] == [0, 0]
    assert "is up to date" in said[0] or "is up to date" in said[1]
    assert read_lines(tmp_path / "out") == read_lines(pairs)


def test_a_command_that_waited_for_one_that_left_nothing_begins_by_itself(pairs: Path, tmp_path: Path) -> None:
    work = Work(tmp_path / "out.work")
    command = [sys.executable, "-m", "data_tools.cli", "filter", str(pairs), "--out", str(tmp_path / "out")]
    with only_one_command(work):
        process = subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert "waiting for an earlier command" in process.stderr.readline()
        remove_folder(work.folder)
    assert "Error" not in process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert read_lines(tmp_path / "out") == read_lines(pairs)


def test_inputs_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: No such file or directory"):
        run_here(PLAN, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder .* holds no pairs"):
        run_here(PLAN, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="holds no pairs"):
        run_here(PLAN, write_parts(tmp_path / "hollow", [[], []]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_errors_are_one_message_and_a_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = write_parts(tmp_path / "broken", [[pair(1)], [{"query": "no passage"}]])
    assert main(["filter", str(broken), "--out", str(tmp_path / "out"), "--workers", "2"]) == 2
    error = capfd.readouterr().err
    assert "line 1 has no positive" in error
    assert "Traceback" not in error


def test_text_from_the_data_has_no_effect_on_the_pages(tmp_path: Path) -> None:
    hostile = {"query": "<script>alert(1)</script>", "positive": "x | y\n# not a heading <img src=x onerror=alert(2)>"}
    kept = {**pair(1), "query": "one two three four five six seven eight nine"}
    inputs = write_parts(tmp_path / "pairs", [[hostile, pair(1), kept]])
    report = run_here(filter_plan(FilterSettings(min_query_words=9)), inputs, tmp_path / "out").report
    assert report is not None
    assert "<script>" not in html(report) and "<img" not in html(report)
    assert "&lt;script&gt;" in (tmp_path / "out" / "report.html").read_text()
    assert "\n# not" not in markdown(report) and r"\<img" in markdown(report)


def test_a_report_is_also_for_programs(pairs: Path, tmp_path: Path) -> None:
    run_here(PLAN, pairs, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["made_from"]["verb"] == "filter"
    assert [part["input"] for part in report["parts"]] == [str(path) for path in part_files(pairs)]
    assert report["parts"][1]["bytes"] == (tmp_path / "out" / "part-00001.jsonl.zst").stat().st_size
    assert time.time() - (tmp_path / "out" / "report.json").stat().st_mtime < 600
