"""What a pod of the Kubernetes manifest runs: two pods on this machine, told to go, begun again as one."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import ENDS_WITHIN_S, ROOT, TRAINS_WITHIN_S, SmallRun, losses, steps_done, wait_until

SCRIPT = str(ROOT / "launch" / "pod.sh")


class Pod:
    """Node `index` of `nodes`, with `ranks` ranks; what it says goes into a file."""

    def __init__(self, small: SmallRun, out: Path, port: int, index: int, nodes: int, ranks: int) -> None:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "JOB_COMPLETION_INDEX": str(index)}
        where |= {"NODES": str(nodes), "RANKS_PER_NODE": str(ranks)}
        words = [str(small.recipe), str(small.world.pairs), "-", str(out)]
        self.log = out.with_name(f"pod-{index}-of-{nodes}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["bash", SCRIPT, *words], env=small.environment | where, stdout=log, stderr=subprocess.STDOUT
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def ends(self, within_s: float) -> int:
        wait_until(lambda: self.process.poll() is not None, within_s, self.said)
        return int(self.process.returncode)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.cluster
def test_pods_save_when_one_has_to_go_and_fewer_go_on(
    small_run: SmallRun, uninterrupted: list[float], tmp_path: Path
) -> None:
    out, port = tmp_path / "run", free_port()
    pods = [Pod(small_run, out, port, index, nodes=2, ranks=1) for index in range(2)]
    wait_until(lambda: steps_done(out) >= 4, TRAINS_WITHIN_S, pods[0].said)
    pods[1].process.send_signal(signal.SIGTERM)
    assert [pod.ends(ENDS_WITHIN_S) for pod in pods] == [75, 75], pods[0].said() + pods[1].said()
    assert (out / "train" / "checkpoints" / f"step-{steps_done(out):08d}").is_dir()

    alone = Pod(small_run, out, free_port(), 0, nodes=1, ranks=2)
    assert alone.ends(TRAINS_WITHIN_S) == 0, alone.said()
    assert "continuing from" in alone.said()
    assert losses(out) == pytest.approx(uninterrupted, abs=1e-5)
    assert (out / "model" / "modules.json").is_file()


# In place of largede: rank 1 leaves with 75, rank 0 waits for it for ever.
RANKS = """
import os, sys, time
if os.environ["RANK"] == "1":
    sys.exit(75)
time.sleep(60)
"""


def test_a_rank_that_waits_for_ever_is_ended_and_the_status_is_that_of_the_first(tmp_path: Path) -> None:
    stand_in(tmp_path, RANKS)
    (tmp_path / "out" / "shards").mkdir(parents=True)
    (tmp_path / "out" / "shards" / "index.json").touch()
    place = {"MASTER_ADDR": "127.0.0.1", "NODES": "1", "RANKS_PER_NODE": "2", "JOB_COMPLETION_INDEX": "0"}
    done = subprocess.run(
        ["bash", SCRIPT, "mini", "pairs.jsonl", "-", str(tmp_path / "out")],
        env={"PATH": "/usr/bin:/bin", "LARGEDE_VENV": str(tmp_path), "PYTHONPATH": str(tmp_path), "PATIENCE_S": "2"}
        | place,
        cwd=tmp_path,
        timeout=50,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 75, done.stderr


def stand_in(folder: Path, ranks: str) -> None:
    """An environment whose `python -m largede.cli` is the program `ranks`."""
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "bin" / "largede").write_text("#!/bin/sh\nexit 9\n")
    (folder / "bin" / "largede").chmod(0o755)
    (folder / "largede").mkdir()
    (folder / "largede" / "__init__.py").touch()
    (folder / "largede" / "cli.py").write_text(ranks)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"NODES": "two"}, "NODES is 'two'; expected a whole number"),
        ({"JOB_COMPLETION_INDEX": "2"}, "node 2 of 2: parallelism, completions and NODES must be equal"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
    ],
)
def test_a_pod_that_does_not_know_its_place_says_so(setting: dict[str, str], message: str, tmp_path: Path) -> None:
    place = {"NODES": "2", "RANKS_PER_NODE": "1", "JOB_COMPLETION_INDEX": "0", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        ["bash", SCRIPT, "mini", "pairs.jsonl", "-", str(tmp_path / "out")],
        env={"PATH": "/usr/bin:/bin"} | place | setting,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "") and message in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
