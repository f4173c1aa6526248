"""The main job, end to end, as a newcomer runs it: killed in the middle of training, continued, and run once more."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from largede.quickstart import in_minutes

STAGES = ("mine", "vocabulary", "shards", "train", "export", "encode", "search", "BM25", "fuse", "report")
COMMAND = [sys.executable, "-m", "largede.cli", "quickstart", "--minutes", "0.3"]
SETTINGS = ["--run.log_every", "2", "--run.checkpoint_every", "4"]


def start(out: Path) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "OMP_NUM_THREADS")}
    return subprocess.Popen(
        [*COMMAND, "--out", str(out), *SETTINGS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def kill_at(out: Path, mark: str) -> None:
    """Start, and kill everything with SIGKILL when a line that starts with `mark` appears."""
    process = start(out)
    printed = []
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        if line.strip().startswith(mark):
            os.killpg(process.pid, signal.SIGKILL)
            # The launcher puts ranks into sessions of their own; what is left running would hold the folder's files.
            subprocess.run(["pkill", "-9", "-f", str(out)], check=False)
            break
    assert process.wait() == -signal.SIGKILL, "".join(printed)


def run_to_its_end(out: Path) -> dict[str, str]:
    """The line of each stage."""
    process = start(out)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    lines = {line.split()[0]: line for line in printed.splitlines() if line.split()[:1] and line[0] != " "}
    assert set(STAGES) <= set(lines), printed
    return lines | {"all": printed}


def test_one_minute_is_one() -> None:
    assert [in_minutes(minutes) for minutes in (0.5, 1, 5)] == ["0.5 minutes", "1 minute", "5 minutes"]


@pytest.mark.slow
def test_quickstart_survives_a_kill_and_skips_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "quickstart"
    kill_at(out, "step 8/")

    continued = run_to_its_end(out)
    for stage in ("mine", "vocabulary", "shards"):
        assert "skipped" in continued[stage]
    assert "continuing from" in continued["all"] and "skipped" not in continued["train"]

    results = json.loads((out / "evaluation" / "results.json").read_text())
    figures = results["datasets"][0]["figures"]
    assert figures["dense"]["nDCG@10"]["mean"] > figures["untrained"]["nDCG@10"]["mean"]
    assert 0.45 < figures["bm25"]["nDCG@10"]["mean"] < 0.7
    assert (out / "evaluation" / "report.html").stat().st_size > 20_000
    for name in ("dense", "bm25", "fused"):
        assert (out / "evaluation" / "runs" / "heldout" / "test" / f"{name}.trec").is_file()

    again = run_to_its_end(out)
    assert all("skipped" in again[stage] for stage in STAGES)
