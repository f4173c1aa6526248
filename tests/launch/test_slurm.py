"""A real Slurm of one node runs launch/slurm.sbatch and what asks Slurm for jobs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from beir_folder import write_collection
from made_slurm import MadeSlurm
from small_run import ENDS_WITHIN_S, ROOT, TRAINS_WITHIN_S, SmallRun, losses, steps_done, wait_until

pytestmark = pytest.mark.cluster("munged", "slurmctld", "slurmd", "sbatch", "srun")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MadeSlurm]:
    with MadeSlurm(tmp_path_factory.mktemp("slurm")) as made:
        yield made


class Job:
    """launch/slurm.sbatch with two ranks of `small`, training into `out`."""

    def __init__(self, slurm: MadeSlurm, small: SmallRun, out: Path) -> None:
        self.slurm, self.out, self.log = slurm, out, out.with_suffix(".log")
        words = ["--ntasks-per-node=2", f"--output={self.log}", "launch/slurm.sbatch"]
        words += [str(small.recipe), str(small.world.pairs), "-", str(out)]
        self.number = submit(slurm, small, *words)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def story(self) -> str:
        return self.said() + self.slurm.story()

    def comes_to_step(self, step: int) -> None:
        ended = ("COMPLETED", "FAILED", "CANCELLED")
        wait_until(
            lambda: steps_done(self.out) >= step or self.slurm.state(self.number) in ended, TRAINS_WITHIN_S, self.story
        )
        assert self.slurm.state(self.number) == "RUNNING", f"it ended before step {step}:\n{self.story()}"

    def starts_at_once(self) -> None:
        """Slurm lets a job that was put back wait for two minutes, until its credentials of before have expired.

        The new ones must be of a later second than the end of the old ones, or the node takes them for those.
        """
        self.comes_to("PENDING")
        time.sleep(2.0)
        self.slurm.ask("scontrol", "update", f"JobId={self.number}", "StartTime=now")

    def comes_to(self, state: str, within_s: float = ENDS_WITHIN_S) -> None:
        wait_until(lambda: self.slurm.state(self.number) in (state, "FAILED"), within_s, self.story)
        assert self.slurm.state(self.number) == state, self.story()


def submit(slurm: MadeSlurm, small: SmallRun, *words: str) -> str:
    """The number of the new job."""
    done = subprocess.run(
        ["sbatch", "--parsable", *words],
        env=small.environment | slurm.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def times_run_again(slurm: MadeSlurm, job: Job) -> int:
    return int(slurm.facts(job.number)["Restarts"])


def test_a_job_saves_and_runs_again_when_preempted_and_when_its_time_is_up(
    slurm: MadeSlurm, small_run: SmallRun, uninterrupted: list[float], tmp_path: Path
) -> None:
    job = Job(slurm, small_run, tmp_path / "run")
    job.comes_to_step(4)
    urgent = submit(
        slurm, small_run, "--partition=urgent", "--ntasks=2", f"--output={tmp_path}/urgent.log", "--wrap", "true"
    )
    wait_until(lambda: slurm.state(urgent) == "COMPLETED", ENDS_WITHIN_S, job.story)
    assert "asked to leave: putting job" in job.said(), job.story()
    saved_at = steps_done(job.out)
    assert (job.out / "train" / "checkpoints" / f"step-{saved_at:08d}").is_dir()

    job.starts_at_once()
    job.comes_to_step(saved_at + 4)
    assert times_run_again(slurm, job) == 1
    subprocess.run(["scancel", "--batch", "--signal=USR1", job.number], env=os.environ | slurm.environment, check=True)
    wait_until(lambda: job.said().count("asked to leave") == 2, ENDS_WITHIN_S, job.story)

    job.starts_at_once()
    job.comes_to("COMPLETED", within_s=TRAINS_WITHIN_S)
    assert times_run_again(slurm, job) == 2
    assert losses(job.out) == pytest.approx(uninterrupted, abs=1e-5)
    assert (job.out / "model" / "modules.json").is_file()


def test_a_job_whose_rank_was_killed_runs_again_if_it_had_come_further(
    slurm: MadeSlurm, small_run: SmallRun, uninterrupted: list[float], tmp_path: Path
) -> None:
    job = Job(slurm, small_run, tmp_path / "run")
    job.comes_to_step(6)
    os.kill(max(ranks_in(job.out)), signal.SIGKILL)
    wait_until(lambda: "into the queue again" in job.said(), ENDS_WITHIN_S, job.story)
    assert "largede: the ranks ended with status 137" in job.said(), job.story()
    job.starts_at_once()
    job.comes_to("RUNNING")
    wait_until(lambda: len(ranks_in(job.out)) == 2, TRAINS_WITHIN_S, job.story)
    for rank in ranks_in(job.out):  # while they still import, for once they train there is soon another checkpoint
        os.kill(rank, signal.SIGKILL)
    job.comes_to("FAILED", within_s=TRAINS_WITHIN_S)
    assert times_run_again(slurm, job) == 1


def ranks_in(out: Path) -> list[int]:
    """The process numbers of the ranks that train in `out`."""
    found = subprocess.run(["pgrep", "-f", f"python -m largede.cli train .*{out}/"], capture_output=True, text=True)
    processes = [int(line) for line in found.stdout.split()]
    # Processes that a rank forks, for example to ask git for the commit, have its command line for a moment.
    return [process for process in processes if parent_of(process) not in processes]


def parent_of(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 0


def test_a_cancelled_job_stays_cancelled(slurm: MadeSlurm, small_run: SmallRun, tmp_path: Path) -> None:
    job = Job(slurm, small_run, tmp_path / "run")
    job.comes_to_step(1)
    subprocess.run(["scancel", job.number], env=os.environ | slurm.environment, check=True)
    wait_until(lambda: not slurm.ask("squeue", "-h", "-j", job.number), ENDS_WITHIN_S, job.story)
    assert slurm.state(job.number) == "CANCELLED" and times_run_again(slurm, job) == 0


def test_an_array_evaluates_every_checkpoint_once(
    slurm: MadeSlurm, small_run: SmallRun, uninterrupted: list[float], tmp_path: Path
) -> None:
    run = small_run.undisturbed / "train"
    collection = write_collection(tmp_path / "collection")
    words = [
        "--array=0-1",
        f"--output={tmp_path}/%a.log",
        "launch/evaluate.sbatch",
        str(run),
        str(collection),
        "--",
        "--no-bm25",
    ]
    array = submit(slurm, small_run, *words)

    def said() -> str:
        return "".join(path.read_text() for path in sorted(tmp_path.glob("*.log"))) + slurm.story()

    wait_until(lambda: not slurm.ask("squeue", "-h", "-j", array), TRAINS_WITHIN_S, said)
    checkpoints = {path.name for path in (run / "checkpoints").glob("step-*")}
    assert {path.stem for path in (run / "evaluations").glob("step-*.json")} == checkpoints, said()


def test_pipelines_of_the_data_tools_run_on_it(slurm: MadeSlurm) -> None:
    tests = str(ROOT / "tests" / "data_tools" / "pipelines" / "test_executors.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", tests, "-k", "test_slurm", "-p", "no:cacheprovider"],
        env=os.environ | slurm.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "3 passed" in done.stdout and "skipped" not in done.stdout, done.stdout
