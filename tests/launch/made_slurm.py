"""A real Slurm of one node: munged, slurmctld and slurmd with their configuration in a temporary folder."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# Two partitions over the same processors: a job of `urgent` sends a job of `patient` away, with half a minute of grace.
CONFIGURATION = """
ClusterName=made
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4096 State=UNKNOWN
PartitionName=patient Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 MaxTime=INFINITE
PartitionName=urgent Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
"""


class MadeSlurm:
    """A context: leaving it cancels what is left and ends the daemons. `environment` is how commands find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "MadeSlurm":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        host = socket.gethostname().split(".")[0]
        places = {"host": host, "folder": self.folder, "controller_port": free_port(), "node_port": free_port()}
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**places))
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        # munged trusts no folder that others may write to, /tmp above all; --force makes that a warning.
        places_of_munge = [f"--{name}-file={self.folder}/munge.{name}" for name in ("pid", "log", "seed")]
        socket_of_munge = f"--socket={self.folder}/munge.socket"
        self.daemon("munged", "--foreground", "--force", socket_of_munge, f"--key-file={key}", *places_of_munge)
        wait_for(lambda: (self.folder / "munge.socket").exists(), self)
        self.daemon("slurmctld", "-D", "-i")
        self.daemon("slurmd", "-D", "-N", host)
        wait_for(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), self)

    def __exit__(self, *error: object) -> None:
        if len(self.daemons) == 3:
            subprocess.run(["scancel", "--signal=KILL", "--full", "-u", "root"], env=os.environ | self.environment)
            subprocess.run(["scancel", "-u", "root"], env=os.environ | self.environment)
            deadline = time.monotonic() + 10
            while self.ask("squeue", "-h") and time.monotonic() < deadline:
                time.sleep(0.2)
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def daemon(self, program: str, *words: str) -> None:
        path = shutil.which(program, path=f"/usr/sbin:{os.environ['PATH']}")
        assert path is not None
        log = (self.folder / f"{program}.out").open("wb")
        environment = os.environ | self.environment
        self.daemons.append(subprocess.Popen([path, *words], env=environment, stdout=log, stderr=log))

    def ask(self, *words: str) -> str:
        done = subprocess.run(words, env=os.environ | self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED, CANCELLED …"""
        return str(self.facts(job).get("JobState", "unknown"))

    def facts(self, job: str) -> dict[str, str]:
        words = self.ask("scontrol", "show", "job", "-o", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def story(self) -> str:
        texts = [self.ask("scontrol", "show", "job")]
        texts += [path.read_text(errors="replace")[-3000:] for path in self.folder.glob("slurm*.log")]
        return json.dumps(self.environment) + "\n".join(texts)


def wait_for(happened: object, slurm: MadeSlurm, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not happened():  # type: ignore[operator]
        dead = [daemon.args for daemon in slurm.daemons if daemon.poll() is not None]
        assert not dead and time.monotonic() < deadline, f"ended: {dead}\n{slurm.story()}"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
