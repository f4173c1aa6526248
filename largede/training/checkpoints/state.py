"""What a checkpoint says of itself, and whether it is as it was written."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from largede.config.load import recipe_from_tree
from largede.config.recipe import Recipe
from largede.errors import CheckpointError
from largede.files import fingerprint_of, sha256_file
from largede.training.checkpoints.retention import FOLDER_PATTERN, step_of
from largede.training.collectives import any_over_ranks, group_device, objects_of_ranks, rank, world_size

FORMAT = 1

STATE_FILE = "state.json"

CHECKSUM = "checksum"
"""In `state.json`, of all the rest of it."""


OF_A_CHECKPOINT = {"step", "recipe", "files"}
"""What every `state.json` of a checkpoint has."""


class OtherFormatError(CheckpointError):
    """A checkpoint that may be sound and that this largede does not understand."""


@dataclass(frozen=True)
class CheckpointState:
    """What is in `state.json`."""

    step: int
    optimizer_steps: int
    recipe: dict[str, Any]
    data_fingerprint: str
    parameters: dict[str, list[int]]
    versions: dict[str, str]
    files: dict[str, dict[str, Any]]
    tokenizer_fingerprint: str = ""
    skipped_batches: int = 0
    rewinds: int = 0
    negatives: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True)
class StreamPlace:
    """What a run reads and how far it is: `skipped_batches` beyond its steps were left out by `rewinds` rewinds.

    `negatives` is what was decided of refreshed ones (`largede.runs.negatives`).
    """

    data_fingerprint: str
    tokenizer_fingerprint: str = ""
    skipped_batches: int = 0
    rewinds: int = 0
    negatives: dict[str, Any] = field(default_factory=dict)


def read_state(checkpoint: Path) -> CheckpointState:
    """What a checkpoint folder says of itself.

    Raises:
        CheckpointError: no such folder, half-written, or of another format.
    """
    try:
        values = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        checksum = values.pop(CHECKSUM, None)
        if checksum not in (None, fingerprint_of(values)):  # None: written before there was one
            raise ValueError("it differs from what was written")
        refuse_other_format(checkpoint, values)
        if not values.keys() >= OF_A_CHECKPOINT:  # a run says what it does in a file of the same name
            raise no_checkpoint(checkpoint, f"it has no {STATE_FILE} of one")
        state = CheckpointState(**values)
    except (FileNotFoundError, NotADirectoryError):
        is_there = checkpoint.is_dir()
        raise no_checkpoint(checkpoint, f"it has no {STATE_FILE}" if is_there else "there is no such folder") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint / STATE_FILE} cannot be read: {error}",
            expected=f"format {FORMAT}",
            mend="use the checkpoint before it",
        ) from None
    return state


def no_checkpoint(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is no checkpoint: {why}",
        expected="a folder step-… of a run's checkpoints/, written to its end",
        mend="give an older step-… folder beside it" if path.is_dir() else "check the path",
    )


def refuse_other_format(checkpoint: Path, values: dict[str, Any]) -> None:
    """Raise for a checkpoint of a format that this largede does not know, whatever else its state.json holds."""
    written = values.get("format", FORMAT)
    if written != FORMAT:
        age = "a newer" if isinstance(written, int) and written > FORMAT else "another"
        raise OtherFormatError(
            f"{checkpoint} has format {written}, of {age} largede",
            expected=f"format {FORMAT}",
            mend="use the largede that wrote it",
        )


def damaged_files(checkpoint: Path, state: CheckpointState) -> list[str]:
    """Names of files that are missing or differ from what was written. Ranks share the work. Collective."""
    found = []
    for name in sorted(state.files)[rank() :: world_size()]:
        if not _is_as_written(checkpoint / name, state.files[name]):
            found.append(name)
    return [name for part in objects_of_ranks(found) for name in part]


def _is_as_written(path: Path, facts: dict[str, Any]) -> bool:
    try:
        return path.stat().st_size == facts["bytes"] and sha256_file(path) == facts["sha256"]
    except OSError:  # missing, or on a disk that gives it back no more
        return False


def sound_state(checkpoint: Path) -> CheckpointState:
    """What a checkpoint folder says of itself, when every file is as it was written. Collective.

    Raises:
        CheckpointError: no checkpoint there, or a damaged one.
    """
    state = read_state(checkpoint)
    damaged = damaged_files(checkpoint, state)
    if damaged:
        raise CheckpointError(
            f"{checkpoint} is damaged: {', '.join(damaged)}",
            expected="the files that were written",
            mend="use the checkpoint before it, or copy this one again",
        )
    return state


def sound_checkpoints(folder: Path, upto_step: int | None = None) -> Iterator[tuple[Path, CheckpointState]]:
    """Undamaged checkpoints of a folder, newest first; says on rank 0 which it passes over. Collective.

    Those after `upto_step` are not looked at.
    """
    names = [path.name for path in folder.glob(FOLDER_PATTERN) if upto_step is None or step_of(path.name) <= upto_step]
    # Rank 0's view of the folder counts: a shared file system may show it to others a moment later.
    for name in objects_of_ranks(sorted(names, reverse=True))[0]:
        state, problem = None, ""
        try:
            state = read_state(folder / name)
        except CheckpointError as error:
            problem = error.given
        if not any_over_ranks(state is None, group_device()) and state is not None:
            damaged = damaged_files(folder / name, state)
            if not damaged:
                yield folder / name, state
                continue
            problem = f"damaged: {', '.join(damaged)}"
        if rank() == 0:
            print(f"checkpoint {name} is passed over: {problem or 'another rank cannot read it'}", flush=True)


def recipe_of(state: CheckpointState) -> Recipe:
    return recipe_from_tree(state.recipe, where="the checkpoint's recipe")
