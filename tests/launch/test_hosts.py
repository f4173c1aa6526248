"""Several hosts, each with a network, a name, processes and an sshd: started, cut off, stopped, continued."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_hosts import MadeHosts
from small_run import ENDS_WITHIN_S, ROOT, TRAINS_WITHIN_S, SmallRun, losses, steps_done, wait_until

NAMES = ["node-a", "node-b", "node-c"]

pytestmark = pytest.mark.cluster("sshd", "ssh", "pdsh", "mpirun", "ip", "unshare", "nsenter", "pgrep")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MadeHosts]:
    with MadeHosts(tmp_path_factory.mktemp("hosts"), NAMES) as made:
        yield made


class ManyNodes:
    """launch/many_nodes.sh on the first host, with the hostfile `names`; what it says goes into a file."""

    def __init__(self, hosts: MadeHosts, small: SmallRun, out: Path, names: list[str], launcher: str = "pdsh") -> None:
        self.out = out
        hostfile = small.folder / "hostfile"
        hostfile.write_text("".join(f"{name} slots=1\n" for name in names))
        small_settings = {"LAUNCHER": launcher, "PROBE_S": "5"}
        as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        words = [hostfile, small.recipe, small.world.pairs, "-", out]
        command = ["bash", str(ROOT / "launch" / "many_nodes.sh"), *map(str, words)]
        self.log = out.with_name(f"{out.name}-{len(list(out.parent.glob('*.log')))}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                hosts.command("node-a", *command),
                env=small.environment | small_settings | as_root,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def comes_to_step(self, step: int) -> None:
        wait_until(lambda: steps_done(self.out) >= step or self.process.poll() is not None, TRAINS_WITHIN_S, self.said)
        assert self.process.poll() is None, self.said()

    def signal(self, number: int) -> None:
        """To the script; the process that entered the host for it passes nothing on."""
        subprocess.run(["pkill", f"-{number}", "-P", str(self.process.pid)], check=True)

    def ends(self, within_s: float) -> int:
        wait_until(lambda: self.process.poll() is not None, within_s, self.said)
        return int(self.process.returncode)


def test_a_run_over_pdsh_outlives_a_host_and_a_signal(
    hosts: MadeHosts, small_run: SmallRun, uninterrupted: list[float], tmp_path: Path
) -> None:
    three = ManyNodes(hosts, small_run, tmp_path / "run", NAMES)
    three.comes_to_step(5)
    hosts.cut_off("node-c")
    cut_off_at = time.monotonic()
    assert three.ends(ENDS_WITHIN_S) not in (0, 75)
    print(f"the run ended {time.monotonic() - cut_off_at:.0f} s after node-c was cut off")
    assert "host node-c is lost" in three.said() and "goes on from the last checkpoint" in three.said()

    two = ManyNodes(hosts, small_run, tmp_path / "run", NAMES[:2])
    two.comes_to_step(9)
    assert "continuing from" in two.said()
    two.signal(signal.SIGTERM)
    assert two.ends(ENDS_WITHIN_S) == 75, two.said()
    assert "saved and ended by a signal" in two.said()
    saved = max(path.name for path in (tmp_path / "run" / "train" / "checkpoints").glob("step-*"))
    assert int(saved[5:]) == steps_done(tmp_path / "run"), "the last step is saved, not one before"

    assert ManyNodes(hosts, small_run, tmp_path / "run", NAMES[:2]).ends(TRAINS_WITHIN_S) == 0
    assert losses(tmp_path / "run") == pytest.approx(uninterrupted, abs=1e-5)
    assert (tmp_path / "run" / "model" / "modules.json").is_file()
    hosts.end_processes("node-c", "largede")
    hosts.join_again("node-c")


def test_a_signal_that_comes_while_the_ranks_are_started_ends_all_of_them(
    hosts: MadeHosts, small_run: SmallRun, tmp_path: Path
) -> None:
    two = ManyNodes(hosts, small_run, tmp_path / "run", NAMES[:2])
    wait_until(lambda: "spawned with command" in two.said(), TRAINS_WITHIN_S, two.said)
    two.signal(signal.SIGTERM)
    assert two.ends(ENDS_WITHIN_S) == 75, two.said()
    assert steps_done(tmp_path / "run") == 0
    for name in NAMES[:2]:
        left = hosts.command(name, "pgrep", "-f", f"largede[.]cli .*{tmp_path}/run/")
        assert subprocess.run(left, capture_output=True, text=True).stdout == ""


def test_a_run_over_openmpi_outlives_the_processes_of_a_host(
    hosts: MadeHosts, small_run: SmallRun, uninterrupted: list[float], tmp_path: Path
) -> None:
    two = ManyNodes(hosts, small_run, tmp_path / "run", NAMES[:2], "openmpi")
    two.comes_to_step(4)
    hosts.end_processes("node-b", "largede")
    assert two.ends(ENDS_WITHIN_S) not in (0, 75)
    assert "node-b" in two.said() and "goes on from the last checkpoint" in two.said()

    again = ManyNodes(hosts, small_run, tmp_path / "run", ["node-a", "node-c"], "openmpi")
    assert again.ends(TRAINS_WITHIN_S) == 0, again.said()
    assert "on 2 rank(s)" in again.said() and "continuing from" in again.said()
    assert losses(tmp_path / "run") == pytest.approx(uninterrupted, abs=1e-5)


def test_hosts_that_cannot_take_part_are_named(hosts: MadeHosts, small_run: SmallRun, tmp_path: Path) -> None:
    cases = [
        (["node-a", "node-x"], tmp_path / "run", "host node-x does not answer ssh without a password"),
        (["node-b", "node-a"], tmp_path / "run", "start on the first host"),
        (NAMES, hosts.folder / "own" / "out", "host node-b does not see"),
    ]
    for names, out, message in cases:
        refused = ManyNodes(hosts, small_run, out, names)
        assert refused.ends(ENDS_WITHIN_S) == 1
        assert message in refused.said() and refused.said().count("\n") == 1, refused.said()
    assert not (tmp_path / "run").exists()
