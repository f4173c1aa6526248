"""An evaluation that is killed at random moments and started again, and what it must not do twice.

Run as a program, it kills the real command and prints what each kill hit:

    python tests/evaluation/killing_evaluation.py --kills 10 --model MODEL --data DIR --out FOLDER
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largede.files import sha256_file

PATIENCE_S = 600.0


class Started:
    """Another process, its children and theirs; `kill` ends them all at once."""

    def __init__(self, pid: int, ended: Callable[[], int | None]) -> None:
        self.pid = pid
        self.ended = ended

    def wait(self, seconds: float) -> int | None:
        """The exit status, or None when it is still running after so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status = self.ended()
            if status is not None:
                return status
            time.sleep(0.005)
        return None

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self.wait(PATIENCE_S)


@dataclass(frozen=True)
class Killed:
    """What the kills hit, and what was made twice although it was whole before a kill."""

    hit: Counter[str]
    repeated: list[str]
    ended_early: int
    """How often a run was whole before it could be killed, and was begun anew."""


def kill_and_restart(start: Callable[[], Started], out: Path, kills: int, whole_s: float, seed: int) -> Killed:
    """Start, kill after a while drawn from most of the time `whole_s` of an undisturbed run, again; at last let it end.

    A run that ends before all kills are spent is removed and begun anew.
    """
    draw = random.Random(seed)
    hit: Counter[str] = Counter()
    repeated: list[str] = []
    whole: dict[str, int] = {}
    ended_early = 0
    while hit.total() < kills:
        running = start()
        status = running.wait(draw.uniform(0.0, 0.8 * whole_s))
        if status is None:
            running.kill()
            hit[stage_of(out)] += 1
        repeated += made_again(whole, out)
        whole = whole_files(out)
        if status is not None:
            assert status == 0, f"the evaluation failed with status {status}"
            shutil.rmtree(out)
            whole = {}
            ended_early += 1
    running = start()
    assert running.wait(PATIENCE_S) == 0
    return Killed(hit, repeated + made_again(whole, out), ended_early)


def whole_files(out: Path) -> dict[str, int]:
    """What is finished, by when it was: a shard has its mark, a stage its stamp."""
    marks = [*out.glob("embeddings/*/shard-*.json"), *out.rglob("*.stamp.json")]
    return {str(mark.relative_to(out)): mark.stat().st_mtime_ns for mark in marks}


def made_again(before: dict[str, int], out: Path) -> list[str]:
    now = whole_files(out)
    return [name for name, time_ns in before.items() if now.get(name) != time_ns]


def stage_of(out: Path) -> str:
    """The stage a run was in, from what it left."""
    if not list(out.glob("embeddings/*/manifest.json")):
        return "encode"
    for name in ("dense", "bm25", "fused"):
        if not list(out.glob(f"runs/*/test/{name}.stamp.json")):
            return name
    return "report" if not (out / ".report.json").is_file() else "ending"


def bytes_of(out: Path) -> dict[str, str]:
    """Checksums of vectors and ranked lists by name."""
    files = [*out.glob("embeddings/**/*.npy"), *out.glob("queries/*.npy"), *out.glob("runs/**/*.trec")]
    return {str(file.relative_to(out)): sha256_file(file) for file in files}


def figures_of(out: Path) -> Any:
    return json.loads((out / "results.json").read_text(encoding="utf-8"))["datasets"]


def leftovers(out: Path) -> list[str]:
    return [str(path.relative_to(out)) for path in out.rglob(".*partial*")]


def started(command: list[str]) -> Started:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=dict(os.environ)
    )
    return Started(process.pid, process.poll)


def forked(work: Callable[..., None], *args: Any) -> Started:
    """`work(*args)` in a process that is forked from one which has imported what takes seconds to import."""
    process = multiprocessing.get_context("forkserver").Process(target=_in_a_group, args=(work, args))
    process.start()
    while process.pid is None or os.getpgid(process.pid) != process.pid:
        time.sleep(0.001)
    return Started(process.pid, lambda: process.exitcode)


def _in_a_group(work: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.setsid()
    work(*args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("flags", nargs="*", help="further flags of `largede evaluate`, after --")
    args = parser.parse_args()

    def command(out: Path) -> list[str]:
        words = ["evaluate", "--model", args.model, "--data", args.data, "--out", out, *args.flags]
        return [sys.executable, "-m", "largede.cli", *map(str, words)]

    undisturbed, disturbed = args.out / "undisturbed", args.out / "disturbed"
    begin = time.monotonic()
    assert started(command(undisturbed)).wait(PATIENCE_S) == 0
    whole_s = time.monotonic() - begin
    print(f"undisturbed: {whole_s:.1f} s", flush=True)
    killed = kill_and_restart(lambda: started(command(disturbed)), disturbed, args.kills, whole_s, args.seed)
    print("kills that hit:", ", ".join(f"{name} {count}" for name, count in killed.hit.most_common()))
    print("made twice although whole:", killed.repeated or "nothing")
    print("same bytes:", bytes_of(disturbed) == bytes_of(undisturbed))
    print("same figures:", figures_of(disturbed) == figures_of(undisturbed))
    print("left behind:", leftovers(disturbed) or "nothing")


if __name__ == "__main__":
    main()
