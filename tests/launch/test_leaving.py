"""Signals to the scripts that start ranks through a launcher."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from small_run import ENDS_WITHIN_S, ROOT, TRAINS_WITHIN_S, SmallRun, losses, steps_done, wait_until

from largede.runs.evaluated import Evaluated, mark_best, read_records, write_record

# Like a script: work of this machine, ranks, work of this machine.
SCRIPT = """
set -euo pipefail
source "{root}/launch/common.sh"
source "{root}/launch/leaving.sh"
out={folder}/run
do_step bash -c {first!r}
begin_step tell_ranks bash -c {launcher!r} "$out"
finish_step
conclude_step "the ranks ended with status $step_status"
do_step bash -c {last!r}
"""

# A rank that imports for a while, then listens, then saves.
RANK = """
import signal, sys, time
def save(number, frame):
    print("rank saves", flush=True)
    sys.exit({status})
print("rank starts", flush=True)
time.sleep(1.5)
signal.signal(signal.SIGUSR1, save)
time.sleep({trains_s})
print("rank has trained", flush=True)
"""


class Script:
    """The script above; `trains_s` and `status`: how long its rank trains, and how it leaves when it is told to."""

    def __init__(self, folder: Path, *, first: str = "true", trains_s: float = 30, status: int = 75) -> None:
        (folder / "largede").mkdir(parents=True)
        (folder / "largede" / "__init__.py").touch()
        (folder / "largede" / "cli.py").write_text(RANK.format(status=status, trains_s=trains_s))
        self.log = folder / "log"
        launcher = f'cd {folder}; python3 -u -m largede.cli train --run.out "$0/train"'
        text = SCRIPT.format(root=ROOT, folder=folder, first=first, launcher=launcher, last="echo the last step")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(["bash", "-c", text], stdout=log, stderr=log)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def says(self, words: str) -> None:
        wait_until(lambda: words in self.said(), 20, self.said)

    def ends(self) -> int:
        wait_until(lambda: self.process.poll() is not None, 20, self.said)
        return int(self.process.returncode)


def test_a_script_that_nobody_disturbs_does_all_its_steps(tmp_path: Path) -> None:
    script = Script(tmp_path, trains_s=0.1)
    assert script.ends() == 0 and "rank has trained\nthe last step" in script.said()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_comes_before_the_ranks_listen_is_not_lost(number: signal.Signals, tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.says("rank starts")
    script.process.send_signal(number)
    assert script.ends() == 75, script.said()
    assert "rank saves" in script.said() and "saved and ended by a signal" in script.said()
    assert "the last step" not in script.said()


def test_before_training_a_signal_ends_the_work_at_once(tmp_path: Path) -> None:
    script = Script(tmp_path, first="echo shards; sleep 60; echo all shards")
    script.says("shards")
    script.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert script.ends() == 75 and time.monotonic() - begun < 10
    assert "rank" not in script.said() and "all shards" not in script.said()


def test_a_run_that_could_not_save_does_not_pass_for_a_saved_one(tmp_path: Path) -> None:
    script = Script(tmp_path, status=2)
    script.says("rank starts")
    script.process.send_signal(signal.SIGTERM)
    assert script.ends() == 2 and "the ranks ended with status 2" in script.said()


def test_a_step_that_fails_ends_the_script_with_its_status(tmp_path: Path) -> None:
    script = Script(tmp_path, first="exit 3")
    assert script.ends() == 3 and "ended with status 3" in script.said() and "rank" not in script.said()


@pytest.mark.parametrize(
    ("words", "is_of_the_run"),
    [
        ("train mini --data.shards /runs/a.b/shards --run.out /runs/a.b/train --run.steps 9", True),
        ("--local_rank=0 train mini --data.shards /runs/a.b/shards --run.out /runs/a.b/train", True),
        ("evaluate --model /runs/a.b/model --data med --training /runs/a.b/train --out /runs/a.b/report", True),
        ("train mini --run.start_from /runs/a.b/train/checkpoints/step-00000010 --run.out /runs/c/train", False),
        ("train mini --data.shards /runs/a.b/shards --run.out /runs/c/train", False),
        ("train mini --run.out /data/runs/a.b/train", False),
        ("train mini --run.out /runs/a.b/train-again", False),
        ("train mini --run.out /runs/aXb/train", False),
    ],
)
def test_the_ranks_of_a_run_are_known_from_those_of_others(words: str, is_of_the_run: bool) -> None:
    known = f'source "{ROOT}/launch/leaving.sh"; grep -Ec "$(ranks_of /runs/a.b)"'
    command = f"/venv/bin/python -u -m largede.cli {words}\n"
    found = subprocess.run(["bash", "-c", known], input=command, capture_output=True, text=True)
    assert found.stdout == f"{int(is_of_the_run)}\n"


@pytest.mark.cluster("setsid", "pgrep", "deepspeed")
def test_a_run_on_one_machine_saves_when_told_and_its_model_follows(
    small_run: SmallRun, uninterrupted: list[float], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    told = OneNode(small_run, out)
    wait_until(lambda: steps_done(out) >= 4 or told.process.poll() is not None, TRAINS_WITHIN_S, told.said)
    told.process.send_signal(signal.SIGTERM)
    assert told.ends(ENDS_WITHIN_S) == 75 and "saved and ended by a signal" in told.said(), told.said()
    saved = f"step-{steps_done(out):08d}"
    subprocess.run(["largede", "export", out / "train", out / "model"], check=True, env=small_run.environment)
    assert saved in (out / "model" / "largede.json").read_text()

    again = OneNode(small_run, out)
    assert again.ends(TRAINS_WITHIN_S) == 0, again.said()
    assert losses(out) == pytest.approx(uninterrupted, abs=1e-5)
    assert "step-00000016" in (out / "model" / "largede.json").read_text(), again.said()

    # It was watched for a while, and what was evaluated is gone.
    write_record(out / "train", Evaluated(5, "step-00000005", "ndcg@10", 0.5, {}, "of one that is gone", 0.0))
    mark_best(out / "train", read_records(out / "train"))
    third = OneNode(small_run, out)
    assert third.ends(TRAINS_WITHIN_S) == 0, third.said()
    assert "step-00000005, the best, is gone" in third.said() and "holds" in third.said()


class OneNode:
    """launch/one_node.sh without evaluation; what it says goes into a file."""

    def __init__(self, small: SmallRun, out: Path) -> None:
        words = ["bash", str(ROOT / "launch" / "one_node.sh"), small.recipe, small.world.pairs, "-", out]
        self.log = out.with_name(f"{len(list(out.parent.glob('*.log')))}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                list(map(str, words)), env=small.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def ends(self, within_s: float) -> int:
        wait_until(lambda: self.process.poll() is not None, within_s, self.said)
        return int(self.process.returncode)
