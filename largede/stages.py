"""A stage is skipped when it was done before from the same inputs and what it wrote is still there unchanged."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from largede.files import fingerprint_of, read_json_object, sha256_file, write_json
from largede.waiting import wait_until


def run_stage(stamp: Path, inputs: dict[str, object], outputs: Sequence[Path], work: Callable[[], None]) -> bool:
    """Do `work`, which writes `outputs`, unless `stamp` says that it is done; tell whether it was done now.

    `inputs` is everything the outputs depend on, as a JSON value. The stamp is written last: a stage that was killed
    is done again. `work` may add to `outputs` what it could not know before.
    """
    if is_done(stamp, inputs, outputs):
        return False
    stamp.unlink(missing_ok=True)
    work()
    write_json(stamp, {"inputs": fingerprint_of(inputs), "outputs": {path.name: sha256_file(path) for path in outputs}})
    return True


def wait_for_stage(stamp: Path, inputs: dict[str, object]) -> None:
    """Wait until another process has done the stage from these inputs."""
    fingerprint = fingerprint_of(inputs)
    said = f"the first process to make what {stamp} stands for"
    wait_until(lambda: stamp.is_file() and read_json_object(stamp).get("inputs") == fingerprint, said)


def is_done(stamp: Path, inputs: dict[str, object], outputs: Sequence[Path]) -> bool:
    """Whether the stage was done from these inputs and its outputs are still there unchanged."""
    try:
        found = json.loads(stamp.read_bytes())
        written = {path.name: sha256_file(path) for path in outputs}
    except (OSError, ValueError):
        return False
    return bool(found == {"inputs": fingerprint_of(inputs), "outputs": written})
