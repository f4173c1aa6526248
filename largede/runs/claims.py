"""A claim: a file that says which process is at work on something, for processes of many hosts on one file system.

Creating a file that must not exist is atomic on local disks, NFS, Lustre and GPFS alike, so one process of many gets
it. Locks of the kernel (flock, lockf) would be released by themselves on kill -9, but need a lock service that cluster
file systems are often mounted without, and then they hold on each host alone, silently. Hence the file says who holds
it, and whoever finds it judges whether the holder is gone:

    same machine     the process is gone, or its number belongs to a process that started at another time
    another machine  the file has not been touched for SILENT_S; a thread of the holder touches it every BEAT_S

A claim whose holder is gone is moved aside and taken. A holder that was silent for so long (suspended, cut off from
the disk) and finds another's claim in its place knows that it has `lost` it and has to stop. One that was not silent
and finds no claim at all (somebody cleaned up) takes it again: nobody could have taken it rightly.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from largede.errors import LargedeError

BEAT_S = 10.0
SILENT_S = 60.0


@dataclass(frozen=True)
class Holder:
    """The process that holds a claim. `machine` tells apart what shares no process numbers; `since` is unix time."""

    host: str
    machine: str
    pid: int
    process_started: str
    since: float
    token: str

    def words(self) -> str:
        since = datetime.fromtimestamp(self.since).astimezone().isoformat(" ", "seconds")
        return f"process {self.pid} on {self.host} since {since}"

    @property
    def is_on_this_machine(self) -> bool:
        return self.machine == this_machine()

    def is_gone(self, silent_s: float) -> bool:
        """Whether the process has ended, as far as one can tell from here."""
        if self.is_on_this_machine:
            return self.process_started != started(self.pid)
        return silent_s > SILENT_S


UNKNOWN = Holder("an unknown host", "", 0, "", 0.0, "")
"""Of a claim that is being written at this moment, or whose writer was killed at that."""


class Claim:
    """A claim of this process on `path`. `beat` is done by the thread that keeps the claim fresh, every BEAT_S.

    `say` is told when the file was removed and had to be written again; by that thread, too.
    """

    def __init__(
        self, path: Path, beat: Callable[[], object] | None = None, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.path = path
        self.say = say
        self.lost = False
        self.trouble = ""
        self._beat = beat
        self._own: Holder | None = None
        self._last_beat = 0.0
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> Holder | None:
        """Take the claim if it is free or its holder is gone: gives None then, and the holder if there is one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            holder = holder_of(self.path)
            if holder is None:
                continue  # released in between
            if not holder.is_gone(silence_s(self.path)):
                return holder
            self._move_aside(holder)
        self._thread = threading.Thread(target=self._keep_fresh, name=f"claim {self.path.name}", daemon=True)
        self._thread.start()
        return None

    def take_in_turn(self) -> None:
        """Take the claim, waiting until it is free."""
        while self.take() is not None:
            time.sleep(0.2)

    def release(self) -> None:
        """Give the claim back, if it is still ours."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        if self._own is not None and holder_of(self.path) == self._own:
            self.path.unlink(missing_ok=True)
        self._own = None

    def _create(self) -> bool:
        own = Holder(
            socket.gethostname(), this_machine(), os.getpid(), started(os.getpid()), time.time(), secrets.token_hex(8)
        )
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(json.dumps(asdict(own)).encode())
        except OSError:
            self.path.unlink(missing_ok=True)  # a full disk: an empty claim would keep others waiting
            raise
        self._own = own
        self._last_beat = time.time()
        return True

    def _move_aside(self, gone: Holder) -> None:
        """Take away the claim of `gone`, and of nobody else who may have been quicker to do so."""
        aside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.gone")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, aside)
            if holder_of(aside) != gone:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()

    def _keep_fresh(self) -> None:
        while not self._ending.wait(BEAT_S):
            try:
                if not self._is_ours() and not self._take_again():
                    self.lost = True
                    return
                os.utime(self.path)
                self._last_beat = time.time()
                if self._beat is not None:
                    self._beat()
                self.trouble = ""
            except (OSError, LargedeError) as error:
                self.trouble = str(error)  # a disk that is full or away for a while ends nothing; the owner may say it

    def _is_ours(self) -> bool:
        if holder_of(self.path) == self._own:
            return True
        time.sleep(0.5)  # another may have moved it aside by mistake and be about to put it back
        return holder_of(self.path) == self._own

    def _take_again(self) -> bool:
        """Write the claim anew after its file was removed, unless another may have had it since we last touched it."""
        was_heard = time.time() - self._last_beat < SILENT_S
        if not (was_heard and holder_of(self.path) is None and self._create()):
            return False
        self.say(f"warning: {self.path} was removed; it is written again, and it belongs to this process")
        return True


def holder_of(path: Path) -> Holder | None:
    """Who holds the claim; None when nobody does, UNKNOWN when the file does not say."""
    try:
        return Holder(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return UNKNOWN


def is_held(path: Path) -> bool:
    """Whether somebody holds the claim and is not gone, by this host's clock: for a look, not for a decision."""
    holder = holder_of(path)
    try:
        return holder is not None and not holder.is_gone(time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return False


def is_abandoned(path: Path) -> bool:
    """Whether there is a claim whose holder is gone, by the clock of whoever keeps the files."""
    holder = holder_of(path)
    return holder is not None and holder.is_gone(silence_s(path))


def remove_abandoned(folder: Path) -> None:
    """Remove claims in `folder` that killed processes left."""
    for path in folder.glob("*.json"):
        if is_abandoned(path):
            path.unlink(missing_ok=True)


def silence_s(path: Path) -> float:
    """Seconds since the claim was touched, both ends by the clock of whoever keeps the files; 0.0 if it is gone."""
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.now")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


@cache
def this_machine() -> str:
    """Equal for processes that see each other by number: the same boot of the same host, the same container."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = os.readlink("/proc/self/ns/pid") if Path("/proc/self/ns/pid").exists() else ""
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.is_file() else ''} {space}".strip()


def started(pid: int) -> str:
    """When a process of this machine started, in ticks since the machine did; "" when there is none (any more)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
