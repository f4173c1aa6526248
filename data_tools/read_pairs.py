"""The first stage of `largede-data shard`: batches of inputs, each read once and left as sorted runs."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgpack

from data_tools.dropped import Dropped
from data_tools.inputs import Content, InputFile, described
from data_tools.pairs import numbered_pairs
from data_tools.shard_settings import PROCESS_BYTES, ShardSettings
from data_tools.sorted_runs import RunWriter
from data_tools.sources import watched
from data_tools.work import Report, Task
from largede.errors import DataError

BATCH_BYTES = 1 << 30
"""Text of the inputs that are read as one task. What a killed run loses of it is read again."""

_BATCHES_PER_WORKER = 4
_MOST_SOURCES = 1 << 16
OTHER_SOURCES = "(further sources)"


@dataclass(frozen=True)
class BatchTask(Task):
    """Some neighbouring inputs; `first` is the number of the first of them among all."""

    files: tuple[InputFile, ...]
    first: int
    bins: int

    @classmethod
    def of(cls, number: int, span: Sequence[int], files: Sequence[InputFile], bins: int) -> "BatchTask":
        chosen = tuple(files[span[0] : span[1]])
        return cls(f"batch-{number:05d}", sum(file.bytes for file in chosen), chosen, span[0], bins)


def batches_of(files: Sequence[InputFile], workers: int) -> list[tuple[int, int]]:
    """Spans of neighbouring inputs with up to BATCH_BYTES of text, less where workers would go idle, or one input."""
    total = sum(file.expected_text_bytes for file in files)
    most = min(BATCH_BYTES, max(PROCESS_BYTES, total // (_BATCHES_PER_WORKER * workers)))
    spans: list[tuple[int, int]] = []
    weight = most + 1
    for number, file in enumerate(files):
        weight += file.expected_text_bytes
        if weight > most:
            spans.append((number, number))
            weight = file.expected_text_bytes
        spans[-1] = (spans[-1][0], number + 1)
    return spans


def read_batch(task: BatchTask, folder: Path, *, settings: ShardSettings, run_bytes: int) -> Report:
    """Write the pairs of the task's inputs as runs into `folder`; answers with what was read and what was not."""
    tally = _Tally(settings)
    runs = RunWriter(folder, settings.seed, task.bins, run_bytes)
    contents = []
    for number, file in enumerate(task.files, start=task.first):
        digest = hashlib.sha256()
        with watched(digest.update):
            runs.add_input(number, _records(file, settings, tally))
        _demand_unchanged(file)
        contents.append(Content(file.path.name, file.bytes, file.mtime_ns, digest.hexdigest()))
    runs.finish()
    return {
        "inputs": [content.to_dict() for content in contents],
        "pairs": tally.pairs,
        "text_bytes": tally.text_bytes,
        "left_out": tally.left_out,
        "bad_lines": tally.bad.to_dict(),
        "sources": dict(tally.sources),
    }


class _Tally:
    """What was met while reading."""

    def __init__(self, settings: ShardSettings) -> None:
        self._skip_bad = settings.skip_bad
        self.pairs = 0
        self.text_bytes = 0
        self.left_out = 0
        self.bad = Dropped()
        self.sources: Counter[str] = Counter()

    def note_bad(self, error: DataError, where: str) -> None:
        """Count a bad line by reason, or raise `error` when there are too many."""
        if self.bad.total() == self._skip_bad:
            raise error
        self.bad.note(_reason(error, where), where)

    def note_pair(self, source: str, size: int) -> None:
        self.pairs += 1
        self.text_bytes += size
        # Bounded, since whoever wrote the pairs may have given every one its own source.
        self.sources[source if source in self.sources or len(self.sources) < _MOST_SOURCES else OTHER_SOURCES] += 1


def _records(file: InputFile, settings: ShardSettings, tally: _Tally) -> Iterator[tuple[int, bytes]]:
    """(line, row as MessagePack) of every pair that is kept."""
    pack = msgpack.Packer().pack
    for number, pair in numbered_pairs(file.path, tally.note_bad, file.pairs):
        if not settings.keeps(pair):
            tally.left_out += 1
            continue
        record = pack(pair)
        tally.note_pair(pair.source, len(record))
        yield number, record


def _reason(error: DataError, where: str) -> str:
    """What was wrong with a line, without what is peculiar to it."""
    what = error.given.removeprefix(where).split(":")[0]
    return re.sub(r"\d+", "N", what).strip(" ,")


def _demand_unchanged(file: InputFile) -> None:
    if described(file.path) != file:
        raise DataError(
            f"{file.path} changed while it was read",
            expected="inputs that nobody writes to",
            mend="wait until it is written, then run the same command again",
        )


def merged_sources(reports: Sequence[Report]) -> dict[str, int]:
    """Pairs by source, the most frequent first."""
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report["sources"])
    return dict(sorted(total.items(), key=lambda entry: (-entry[1], entry[0])))
