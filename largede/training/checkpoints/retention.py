"""Which checkpoints of a run stay, and how the others go.

A checkpoint goes in two steps, renamed and then removed: a process killed in between leaves nothing that looks like a
checkpoint. What it does leave is cleared away when the run is next started.
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from largede.config.recipe import RunConfig
from largede.errors import CheckpointError, NoRoomError
from largede.files import writing
from largede.runs.claims import Claim, is_held, remove_abandoned
from largede.runs.evaluated import Evaluated, fingerprint_of_checkpoint, is_watched, read_records, record_path
from largede.runs.files import CHECKPOINTS, EVALUATIONS, READERS

FOLDER_PATTERN = "step-????????"
LATEST = "latest.json"
HOLD_S = 600.0
"""A checkpoint that someone is reading has a `.hold` file beside its evaluation, renewed more often than this."""


@dataclass(frozen=True)
class Keep:
    """What stays: the newest so many, every one whose step is a multiple, so many best, and so many that wait."""

    newest: int
    every: int | None = None
    best: int = 0
    unevaluated: int = 0


def keep_of(run: RunConfig) -> Keep:
    return Keep(run.keep_checkpoints, run.keep_every, run.keep_best, run.keep_unevaluated)


def step_of(name: str) -> int:
    return int(name.removeprefix("step-"))


def names_to_remove(
    names: Iterable[str],
    written: str,
    keep: Keep,
    values: Mapping[str, float],
    held: Iterable[str] = (),
    *,
    is_watched: bool = False,
) -> list[str]:
    """Names among `names` that go, now that `written` is whole; never `written` itself.

    Names after `written` can only be damaged, and were passed over: they are not counted, and not touched. Of equal
    `values` (larger is better) the earlier checkpoint is the better one. In a run that `is_watched`, those without a
    value wait for theirs: the newest so many of them stay, in addition to all others that do.
    """
    upto_now = sorted(name for name in names if name <= written)
    judged = [name for name in upto_now if name in values]
    best = sorted(judged, key=lambda name: (-values[name], name))[: keep.best]
    staying = {written, *upto_now[-keep.newest :], *best, *held}
    if keep.every:
        staying |= {name for name in upto_now if step_of(name) % keep.every == 0}
    waiting = [name for name in upto_now if is_watched and name not in values and name not in staying]
    staying.update(waiting[::-1][: keep.unevaluated])
    return [name for name in upto_now if name not in staying]


def retire(checkpoints: Path, written: str, keep: Keep) -> list[Path]:
    """Take the names off the checkpoints that go; gives the folders that are left to be removed."""
    run = checkpoints.parent
    names = [path.name for path in checkpoints.glob(FOLDER_PATTERN)]
    values = {record.checkpoint: record.value for record in read_records(run) if is_of_checkpoint(record, checkpoints)}
    held = held_in(run / EVALUATIONS) | being_read(run)
    going = names_to_remove(names, written, keep, values, held, is_watched=is_watched(run))
    return [doom(checkpoints / name) for name in going]


def is_of_checkpoint(record: Evaluated, checkpoints: Path) -> bool:
    """Whether a record is of the checkpoint that is there, and not of the same step before it was trained again."""
    try:
        return record.fingerprint == fingerprint_of_checkpoint(checkpoints / record.checkpoint)
    except CheckpointError:
        return False


def doom(checkpoint: Path) -> Path:
    """Take its name off a checkpoint; gives the folder that is left to be removed."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(checkpoint, doomed)
    return doomed


def remove_all(doomed: Iterable[Path]) -> None:
    for folder in doomed:
        shutil.rmtree(folder, ignore_errors=True)


def discard_after(checkpoint: Path) -> list[Path]:
    """Take back all that a run saved after `checkpoint`, with what was measured of it; gives the folders to remove."""
    try:
        with newest_is(checkpoint):
            pass
    except NoRoomError:
        (checkpoint.parent / LATEST).unlink(missing_ok=True)  # better no name than one that is about to go
    doomed = []
    for later in sorted(checkpoint.parent.glob(FOLDER_PATTERN), reverse=True):
        if later.name > checkpoint.name:
            doomed.append(doom(later))
            record_path(checkpoint.parent.parent, later.name).unlink(missing_ok=True)
    return doomed


@contextmanager
def newest_is(checkpoint: Path) -> Iterator[None]:
    """Let latest.json name the checkpoint when the block, which makes it the newest, ends without an error.

    It is for people and scripts; a run that goes on looks for the newest whole folder itself. The bytes are on the disk
    before the block begins, so what fails for want of room fails before it.
    """
    with writing(checkpoint.parent / LATEST) as stream:
        stream.write(json.dumps({"checkpoint": checkpoint.name}, indent=1).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
        yield


def held_in(evaluations: Path) -> set[str]:
    """Checkpoints that someone said less than ten minutes ago to be reading."""
    held = set()
    for path in evaluations.glob(f"{FOLDER_PATTERN}.hold"):
        try:
            age_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue  # let go in this moment
        if age_s < HOLD_S:
            held.add(path.stem)
    return held


@contextmanager
def reading(checkpoint: Path) -> Iterator[None]:
    """Keep a run from removing its checkpoint while it is read.

    Whoever cannot write into the run reads all the same.
    ."""
    run = checkpoint.parent.parent
    claim = Claim(run / READERS / f"{checkpoint.name}.{secrets.token_hex(8)}.json")
    with contextlib.suppress(OSError):
        if checkpoint.parent.name == CHECKPOINTS and checkpoint.is_dir():
            remove_abandoned(run / READERS)
            claim.take()
    try:
        yield
    finally:
        claim.release()
        with contextlib.suppress(OSError):  # others read, too
            (run / READERS).rmdir()


def being_read(run: Path) -> set[str]:
    """Checkpoints that a process holds by `reading`."""
    return {path.name.partition(".")[0] for path in (run / READERS).glob("*.json") if is_held(path)}


def clear_leftovers(checkpoints: Path) -> None:
    """Remove what a killed run left behind: half-written, replaced and half-removed checkpoints."""
    for replaced in checkpoints.glob(f".{FOLDER_PATTERN}.replaced"):
        before = replaced.with_name(replaced.name.removeprefix(".").removesuffix(".replaced"))
        if not before.exists():  # killed after the old one lost its name and before the new one had it
            os.replace(replaced, before)
    for ending in ("writing", "removed", "replaced"):
        remove_all(checkpoints.glob(f".{FOLDER_PATTERN}.{ending}"))
