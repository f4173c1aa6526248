"""The checkpoints of a run that wait to be evaluated, and those that were removed before their turn."""

from collections.abc import Iterable
from pathlib import Path

from largede.errors import CheckpointError
from largede.runs.evaluated import fingerprint_of_checkpoint, is_evaluated, read_record, record_path
from largede.runs.files import CHECKPOINTS

CHECKPOINT_PATTERN = "step-????????"


class Waiting:
    """What one watcher knows of them; `wanted` empty means all.

    It may be asked from a second thread, so that checkpoints which come and go during an evaluation are seen too.
    """

    def __init__(self, run: Path, wanted: Iterable[str] = ()) -> None:
        self.run = run
        self.wanted = frozenset(wanted)
        self.passed_over: set[str] = set()
        """Fingerprints of those that cannot be evaluated."""
        self.missed: set[str] = set()
        self._seen: set[str] = set()

    def names(self) -> list[str]:
        """Checkpoints that nobody has evaluated, oldest first. One that vanishes is no longer waited for."""
        found = []
        for path in sorted((self.run / CHECKPOINTS).glob(CHECKPOINT_PATTERN)):
            try:
                fingerprint = fingerprint_of_checkpoint(path)
            except CheckpointError:
                continue
            if self._waits(path.name, fingerprint):
                found.append(path.name)
                self._seen.add(path.name)
            else:
                self._seen.discard(path.name)
        return found

    def newly_missed(self) -> list[str]:
        """Those that have been removed unevaluated since this was last asked."""
        gone = [name for name in sorted(self._seen) if not (self.run / CHECKPOINTS / name).exists()]
        self._seen.difference_update(gone)
        found = [name for name in gone if read_record(record_path(self.run, name)) is None]
        self.missed.update(found)
        return found

    def _waits(self, name: str, fingerprint: str) -> bool:
        is_wanted = not self.wanted or name in self.wanted
        return is_wanted and fingerprint not in self.passed_over and not is_evaluated(self.run, name, fingerprint)
