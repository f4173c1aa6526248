"""A stage is skipped when it was done before from the same inputs and what it wrote is still there unchanged."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from largede.files import fingerprint_of, sha256_file, write_json


def run_stage(stamp: Path, inputs: dict[str, object], outputs: Sequence[Path], work: Callable[[], None]) -> bool:
    """Do `work`, which writes `outputs`, unless `stamp` says that it is done; tell whether it was done now.

    `inputs` is everything the outputs depend on, as a JSON value. The stamp is written last: a stage that was killed
    is done again.
    """
    fingerprint = fingerprint_of(inputs)
    if _is_done(stamp, fingerprint, outputs):
        return False
    stamp.unlink(missing_ok=True)
    work()
    write_json(stamp, {"inputs": fingerprint, "outputs": {path.name: sha256_file(path) for path in outputs}})
    return True


def _is_done(stamp: Path, fingerprint: str, outputs: Sequence[Path]) -> bool:
    try:
        found = json.loads(stamp.read_bytes())
        written = {path.name: sha256_file(path) for path in outputs}
    except (OSError, ValueError):
        return False
    return bool(found == {"inputs": fingerprint, "outputs": written})
