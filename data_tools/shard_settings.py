"""What `largede-data shard` is asked for, and what it answers."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from data_tools.inputs import Content
from data_tools.wording import counted
from largede.errors import DataError
from largede.processors import processors
from largede.streams.index import FORMAT, VERSION, ShardIndex
from largede.streams.pair import Pair

PROCESS_BYTES = 1 << 25
"""Text that takes about as long to shard as a process takes to start."""

_GIB = 1 << 30


@dataclass(frozen=True)
class ShardSettings:
    """What decides the shards besides the pairs, and how many bad lines may be passed over on the way.

    `query_fraction` keeps that share of the queries, each with all its pairs: those whose hash, a function of the id or
    else the text and of `fraction_seed`, is low enough. So the kept tenth lies within the kept fifth.
    """

    shard_pairs: int = 65536
    block_pairs: int = 256
    seed: int = 0
    skip_bad: int = 0
    query_fraction: float = 1.0
    fraction_seed: int = 0

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--block-pairs", self.block_pairs, 1),
            ("--shard-pairs", self.shard_pairs, self.block_pairs),
            ("--skip-bad", self.skip_bad, 0),
        ):
            if value < least:
                raise DataError(f"{flag} {value}", expected=f"{least} or more", mend=f"raise {flag}")
        if not 0 < self.query_fraction <= 1:
            raise DataError(
                f"--query-fraction {self.query_fraction}",
                expected="above 0, at most 1",
                mend="give a share such as 0.1",
            )

    def keeps(self, pair: Pair) -> bool:
        """Whether the pair's query belongs to the fraction."""
        if self.query_fraction == 1:
            return True
        name = f"{self.fraction_seed}/{pair.query_id or pair.query}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") < self.query_fraction * 2**64

    def to_dict(self) -> dict[str, Any]:
        """What has to be equal for the same pairs to give the same shards."""
        return {name: value for name, value in asdict(self).items() if name != "skip_bad"}


def fingerprint(contents: Iterable[Content], settings: ShardSettings) -> str:
    """Identifies the content of the inputs, their order, the settings and the format."""
    digest = hashlib.sha256(f"{FORMAT} {VERSION} {settings.to_dict()}".encode())
    for content in contents:
        digest.update(bytes.fromhex(content.sha256))
    return digest.hexdigest()


@dataclass(frozen=True)
class Machine:
    """What the work may take. It shows in the time, never in the shards."""

    workers: int = field(default_factory=processors)
    memory_gib: float | None = None
    """Of all workers together; None: 1 GiB for each."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise DataError(f"--workers {self.workers}", expected="1 or more", mend="raise --workers")
        if self.bytes_per_worker < 1 << 26:
            raise DataError(
                f"--memory-gib {self.memory_gib} for {self.workers} workers",
                expected="a sixteenth of a GiB for each worker at least",
                mend="raise --memory-gib, or use fewer --workers",
            )

    @property
    def bytes(self) -> int:
        return int(self.workers * _GIB if self.memory_gib is None else self.memory_gib * _GIB)

    @property
    def bytes_per_worker(self) -> int:
        return self.bytes // self.workers

    def workers_for(self, text_bytes: int) -> int:
        """Fewer than there may be where the work is too small to be worth starting a process."""
        return min(self.workers, 1 + text_bytes // PROCESS_BYTES)


@dataclass(frozen=True)
class ShardResult:
    """What lies in the folder now, and whether this call wrote it.

    `skipped`: bad lines passed over. `left_out`: good pairs whose queries are not of the fraction.
    """

    index: ShardIndex
    written: bool
    skipped: int
    left_out: int
    seconds: float

    def __str__(self) -> str:
        made = f"{counted(self.index.samples, 'pair')} in {counted(len(self.index.shards), 'shard')}"
        counts = f"{made}, {self.index.bytes:,} bytes"
        if not self.written:
            return f"{self.index.folder} is up to date: {counts}, made from the same inputs and settings"
        rate = self.index.samples / max(self.seconds, 1e-9)
        bad = f", {counted(self.skipped, 'bad line')} passed over" if self.skipped else ""
        left = f", {counted(self.left_out, 'pair')} of queries outside the fraction left out" if self.left_out else ""
        return f"{self.index.folder}: {counts}{bad}{left}; {self.seconds:.1f} s, {rate:,.0f} pairs a second"
