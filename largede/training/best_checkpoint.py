"""The checkpoint of a run that `largede watch` found best, among those that are still there."""

from collections.abc import Callable
from pathlib import Path

from largede.errors import CheckpointError
from largede.files import sha256_file
from largede.runs.evaluated import Evaluated, best_of, read_records
from largede.runs.files import CHECKPOINTS
from largede.training.checkpoints.state import STATE_FILE


def best_checkpoint(run: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """The folder step-… of the best evaluated checkpoint that is there; says so when a better one is gone.

    Where none that was evaluated is left, `run` itself, which stands for its newest checkpoint; that is said, too.

    Raises:
        CheckpointError: no run folder, or nothing evaluated.
    """
    if run.absolute().parent.name == CHECKPOINTS:
        raise CheckpointError(
            f"{run} is one checkpoint, and --best chooses among those of a run",
            expected="a run folder",
            mend=f"give {run.absolute().parent.parent}, or leave out --best",
        )
    records = read_records(run)
    best = best_of(records)
    if best is None:
        raise CheckpointError(
            f"no checkpoint of {run} was evaluated",
            expected="a run folder that `largede watch` has watched",
            mend="run `largede watch` on it, or leave out --best for the newest checkpoint",
        )
    left = best_of([record for record in records if is_there(run, record)])
    if left is None:
        say(f"{best.checkpoint}, the best, is gone (see run.keep_best), and none that was evaluated is left")
        return run
    if left != best:
        say(f"{best.checkpoint}, the best, is gone (see run.keep_best); {left.checkpoint} is the best that is left")
    return run / CHECKPOINTS / left.checkpoint


def is_there(run: Path, record: Evaluated) -> bool:
    """Whether the checkpoint is the one that was evaluated; a step that was trained again is another one."""
    state = run / CHECKPOINTS / record.checkpoint / STATE_FILE
    return state.is_file() and sha256_file(state) == record.fingerprint
