"""Hosts on one machine: each has a network, a name, processes and an sshd of its own; a bridge joins them.

A host is the process that holds its namespaces. When it is killed, everything that ran there is gone at once, as with a
power cut. Configuration of ssh is mounted over /etc/ssh inside the hosts, so the machine's own is not touched.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

SSH_CONFIG = """
Host *
    IdentityFile {folder}/key
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""

SSHD_CONFIG = """
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
PermitRootLogin prohibit-password
UsePAM no
MaxStartups 100
PidFile none
"""

INSIDE = """
set -e
hostname {name}
mount --bind {folder}/etc-hosts /etc/hosts
mount --bind {folder}/ssh /etc/ssh
mount -t tmpfs tmpfs /run
mkdir /run/sshd
mkdir -p {folder}/own
mount -t tmpfs tmpfs {folder}/own
ip link set lo up
exec /usr/sbin/sshd -D -e
"""


class MadeHosts:
    """`names[i]` has the address 10.79.0.(i + 1). A context: leaving it takes everything down."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = list(names)
        self.tag = f"lg{os.getpid() % 100_000}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "MadeHosts":
        try:
            self.write_configuration()
            run("ip", "link", "add", self.tag, "type", "bridge")
            run("ip", "link", "set", self.tag, "up")
            for number, name in enumerate(self.names):
                self.start(number, name)
            for name in self.names:
                self.wait_for_sshd(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for number in range(len(self.names)):
            subprocess.run(["ip", "link", "del", f"{self.tag}v{number}"], capture_output=True)
            subprocess.run(["ip", "netns", "del", self.network(number)], capture_output=True)
        subprocess.run(["ip", "link", "del", self.tag], capture_output=True)

    def network(self, number: int) -> str:
        return f"{self.tag}n{number}"

    def write_configuration(self) -> None:
        (self.folder / "ssh").mkdir()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "key"))
        (self.folder / "ssh" / "ssh_config").write_text(SSH_CONFIG.format(folder=self.folder))
        (self.folder / "ssh" / "sshd_config").write_text(SSHD_CONFIG.format(folder=self.folder))
        shutil.copy("/etc/ssh/moduli", self.folder / "ssh")
        lines = [f"10.79.0.{number + 1} {name}" for number, name in enumerate(self.names)]
        (self.folder / "etc-hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def start(self, number: int, name: str) -> None:
        network, cable = self.network(number), f"{self.tag}v{number}"
        run("ip", "netns", "add", network)
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", network)
        run("ip", "link", "set", cable, "master", self.tag, "up")
        run("ip", "-n", network, "address", "add", f"10.79.0.{number + 1}/24", "dev", "eth0")
        run("ip", "-n", network, "link", "set", "eth0", "up")
        inside = INSIDE.format(name=name, folder=self.folder)
        own = ["unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", inside]
        log = (self.folder / f"sshd-{name}.log").open("wb")
        self.processes[name] = subprocess.Popen(["ip", "netns", "exec", network, *own], stdout=log, stderr=log)

    def wait_for_sshd(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while subprocess.run(self.command(self.names[0], "ssh", name, "true"), capture_output=True).returncode:
            assert time.monotonic() < deadline, (self.folder / f"sshd-{name}.log").read_text()
            time.sleep(0.1)

    def command(self, name: str, *words: str) -> list[str]:
        """`words` as a command line that runs on the host."""
        children = subprocess.run(["pgrep", "-P", str(self.processes[name].pid)], capture_output=True, text=True)
        inside = children.stdout.split()[0] if children.stdout else "0"
        return ["nsenter", "--target", inside, "--net", "--uts", "--mount", "--pid", *words]

    def cut_off(self, name: str) -> None:
        """Pull the cable: the host lives on, and nobody hears of it."""
        run("ip", "link", "set", f"{self.tag}v{self.names.index(name)}", "down")

    def join_again(self, name: str) -> None:
        run("ip", "link", "set", f"{self.tag}v{self.names.index(name)}", "up")

    def end_processes(self, name: str, pattern: str) -> None:
        subprocess.run(self.command(name, "pkill", f"-{signal.SIGKILL.name[3:]}", "-f", pattern), check=False)


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
