"""A small file per rank in the run folder that says, again and again, what the rank does.

Files, not the process group's store: the store lives in rank 0's process and is silent when that one is, while the run
folder is shared by contract, outlives every rank and can be read by a person. No clocks are compared: a rank's file
says how long it has been idle by its own clock, and whether a rank is silent is seen by its beat standing still.
"""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from largede.training.liveness.activity import Activity


def heartbeat_path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05d}.json"


@dataclass(frozen=True)
class Place:
    """Where a rank runs. Processes of one `pid_space` can look at each other."""

    rank: int
    host: str
    pid: int
    pid_space: str

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.host}, pid {self.pid})"


def this_place(rank: int) -> Place:
    return Place(rank, socket.gethostname(), os.getpid(), _pid_space())


def _pid_space() -> str:
    # Containers may share a host name but not their process numbers.
    try:
        return f"{os.readlink('/proc/self/ns/pid')}@{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    except OSError:
        return ""


@dataclass(frozen=True)
class Heartbeat:
    """What a rank says of itself. `hang` names the folder of the hang it takes part in, `has_verdict` that it is told.

    `left`: why its run ended, when it has.
    """

    place: Place
    beat: int
    time_s: float
    step: int
    phase: str
    idle_s: float
    is_over: bool
    call: str = ""
    call_number: int = 0
    calls: dict[int, str] = field(default_factory=dict)
    on_gpu: list[str] = field(default_factory=list)
    batch_step: int | None = None
    samples: list[str] = field(default_factory=list)
    hang: str = ""
    has_verdict: bool = False
    left: str = ""
    is_lost: bool = False

    @property
    def collective(self) -> str:
        """The collective it is in, or nothing."""
        return self.call or (f"{self.on_gpu[0]} on its GPU" if self.on_gpu else "")


SAMPLES_SHOWN = 5


def heartbeat_of(activity: Activity, place: Place, beat: int, *, is_over: bool) -> Heartbeat:
    """What `activity` says now. The calls made before come only with `is_over`: nobody needs them sooner."""
    call = activity.call
    return Heartbeat(
        place=place,
        beat=beat,
        time_s=time.time(),
        step=activity.step,
        phase=activity.phase,
        idle_s=activity.idle_s,
        is_over=is_over,
        call=str(call) if call else "",
        call_number=call.number if call else 0,
        calls={c.number: f"{c.name} ({c.bytes:,} bytes)" for c in tuple(activity.calls)} if is_over else {},
        batch_step=activity.batch_step,
        samples=list(activity.samples[:SAMPLES_SHOWN]),
    )


def write_heartbeat(folder: Path, heartbeat: Heartbeat) -> None:
    """Replace the rank's file."""
    write_news(heartbeat_path(folder, heartbeat.place.rank), asdict(heartbeat))


def write_news(path: Path, value: object) -> None:
    """Replace a JSON file in one step. It is not forced to disk, which takes long: it is news, not a record."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps(value), encoding="utf-8")
    os.replace(fresh, path)


def read_heartbeat(folder: Path, rank: int) -> Heartbeat | None:
    """What the rank said last; None when it has said nothing, or of another version."""
    try:
        values = json.loads(heartbeat_path(folder, rank).read_text(encoding="utf-8"))
        place, calls = Place(**values.pop("place")), values.pop("calls")
        return Heartbeat(place=place, calls={int(number): call for number, call in calls.items()}, **values)
    except (OSError, ValueError, TypeError, KeyError):
        return None


@dataclass
class Seen:
    """What is known of another rank: its last heartbeat and for how long that has stood still, by our own clock."""

    heartbeat: Heartbeat | None
    changed: float

    @property
    def still_s(self) -> float:
        return time.monotonic() - self.changed


class HeartbeatTable:
    """All ranks' heartbeats, as seen from here; `read` again and again to learn who is silent."""

    def __init__(self, folder: Path, world_size: int) -> None:
        self.folder = folder
        self.world_size = world_size
        self.seen: dict[int, Seen] = {}

    def forget(self) -> None:
        """Begin observing anew."""
        self.seen = {}

    def read(self) -> dict[int, Seen]:
        for rank in range(self.world_size):
            now = read_heartbeat(self.folder, rank)
            before = self.seen.get(rank)
            if before is None or (now is not None and now != before.heartbeat):
                self.seen[rank] = Seen(now, time.monotonic())
        return self.seen


def process_state(place: Place, here: Place) -> str:
    """ "ended" or "stopped" for a process that can be looked at from here and is; else nothing."""
    if not here.pid_space or place.pid_space != here.pid_space:
        return ""
    try:
        status = Path(f"/proc/{place.pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "ended"
    state = status.rpartition(")")[2].split()[0]
    return {"Z": "ended", "X": "ended", "T": "stopped", "t": "stopped"}.get(state, "")
