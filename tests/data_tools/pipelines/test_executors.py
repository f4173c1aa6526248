import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pair_parts import part_files, run_here, write_parts

from data_tools.cli import main
from data_tools.pipelines.dedup import DedupSettings, dedup_plan
from data_tools.pipelines.executors import Local, Ray, executor_of

COMMON = ["dedup", "--bands", "2"]
SLURM = ["--executor", "slurm", "--slurm-time", "00:05:00", "--memory-gib", "1"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    parts = [
        [
            {"query": f"question {row % 5} of {part}", "positive": f"answer {row % 5} with a few words"}
            for row in range(8)
        ]
        for part in range(3)
    ]
    return write_parts(tmp_path / "pairs", parts)


def demand_same(pairs: Path, out: Path) -> None:
    """What the executor wrote is what one process writes here."""
    here = out.with_name("here")
    run_here(dedup_plan(DedupSettings(bands=2)), pairs, here)
    assert [path.read_bytes() for path in part_files(out)] == [path.read_bytes() for path in part_files(here)]
    assert len(part_files(out)) == 3


@pytest.mark.slow
def test_ray_writes_what_one_process_writes(pairs: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs the package ray")
    command = [*COMMON, str(pairs), "--out", str(tmp_path / "out"), "--executor", "ray", "--workers", "2"]
    command += ["--memory-gib", "1", "--tasks-per-job", "2"]
    assert subprocess.run([sys.executable, "-m", "data_tools.cli", *command], timeout=300).returncode == 0
    demand_same(pairs, tmp_path / "out")


@pytest.mark.slow
def test_slurm_writes_what_one_process_writes(pairs: Path, tmp_path: Path) -> None:
    partition = slurm_partition()
    command = [*COMMON, str(pairs), "--out", str(tmp_path / "out"), *SLURM, "--slurm-partition", partition]
    assert main([*command, "--wait", "--tasks-per-job", "2"]) == 0
    demand_same(pairs, tmp_path / "out")


@pytest.mark.slow
def test_slurm_jobs_that_wait_are_not_submitted_twice(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*COMMON, str(pairs), "--out", str(tmp_path / "out"), *SLURM, "--slurm-partition", slurm_partition()]
    assert main(command) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert main(command) == 0
    assert first.split("wait or run")[0].startswith(capsys.readouterr().out.split("wait or run")[0][:12])
    assert main([*command, "--wait"]) == 0
    demand_same(pairs, tmp_path / "out")


def slurm_partition() -> str:
    if shutil.which("sbatch") is None:
        pytest.skip("needs sbatch (Slurm)")
    try:
        found = subprocess.run(["sinfo", "-h", "-o", "%R"], capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        pytest.skip("Slurm does not answer within 10 seconds")
    if found.returncode or not found.stdout.strip():
        pytest.skip(f"Slurm does not answer: {found.stderr.strip()}")
    return found.stdout.split()[0]


def test_slurm_asks_for_partition_and_time(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMON, str(pairs), "--out", str(tmp_path / "out"), *SLURM]) == 2
    assert "--executor slurm without --slurm-partition" in capsys.readouterr().err
    assert not (tmp_path / "out.work").exists()


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_no_more_tasks_at_a_time_than_processors_that_may_be_used(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5, 8})
    executor = executor_of(kind, {"workers": None, "memory_gib": 1, "tasks_per_job": 1})
    assert isinstance(executor, Local | Ray) and executor.workers == 3


def test_missing_programs_and_packages_are_named(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    for executor, missing in (
        (["--slurm-partition", "cpu", *SLURM], "no program sbatch"),
        (["--executor", "ray"], "Ray is not"),
    ):
        assert main([*COMMON, str(pairs), "--out", str(tmp_path / "out"), *executor]) == 2
        assert missing in capsys.readouterr().err


def test_array_jobs_do_not_submit_array_jobs(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    command = [*COMMON, str(pairs), "--out", str(tmp_path / "out"), "--slurm-partition", "cpu", *SLURM]
    assert main(command) == 2
    assert "inside a Slurm array job" in capsys.readouterr().err
