"""`largede-data verify`: every checksum, every count, every block, every pair of a folder of shards.

Shards are checked in several processes: decoding and checking pairs keeps the interpreter busy, so threads would wait
for each other.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from data_tools.processes import in_processes
from data_tools.progress import ByteProgress
from data_tools.sound_pairs import all_sound, pair_problem
from data_tools.wording import counted
from largede.errors import DataError
from largede.processors import processors
from largede.streams.block import DamagedBlock, checksum, decode_block
from largede.streams.index import Shard, ShardIndex
from largede.streams.pair import Pair
from largede.streams.places.copy import local_file
from largede.streams.places.local import LocalPlace
from largede.streams.places.place import NotThere, Place, Unanswered, Unreadable

_PROCESS_BYTES = 1 << 27
# Of shards; less is checked before another process has started.
_MOST_UNANSWERED = 3
_MOST_LINES = 5
"""Damaged blocks, and damaged pairs of a block, that are named one by one."""


@dataclass(frozen=True)
class ShardReport:
    """What is wrong with one shard, one line each, and how many of its pairs cannot be had or are unusable."""

    problems: tuple[str, ...]
    lost_pairs: int
    unanswered: bool = False
    """The place did not hand the shard over, however often it was asked."""


@dataclass(frozen=True)
class Verdict:
    """What `verify` found; sound when there are no problems. They come in the order of the shards."""

    index: ShardIndex
    problems: tuple[str, ...]
    lost_pairs: int

    def demand_sound(self) -> None:
        """Raise DataError that lists every problem, if there is one."""
        if self.problems:
            raise DataError(
                f"{self.index.place} is damaged: {self.lost_pairs:,} of {self.index.samples:,} pairs are affected"
                + "".join(f"\n    {problem}" for problem in self.problems),
                expected="shards as `largede-data shard` wrote them",
                mend="copy those shards again from a sound place, or make them again",
            )


def verify(place: Place | Path, workers: int | None = None, quick: bool = False) -> Verdict:
    """Check all shards of a place in `workers` processes (None: one for each processor, fewer for little).

    `quick` looks at the index and at the sizes of the files alone. Raises DataError when the index cannot be used, when
    a place does not answer at several shards in a row, and for a quick look at one that cannot tell sizes.
    """
    index = ShardIndex.read(place)
    if quick:
        reports = list(_quick_reports(index))
    else:
        check = partial(shard_report, index.place)
        workers = min(workers or processors(), 1 + index.bytes // _PROCESS_BYTES)
        reports = []
        checked = [0]
        with ByteProgress("checking", index.bytes, lambda: checked[0]):
            for shard, report in zip(index.shards, in_processes(check, index.shards, workers), strict=True):
                reports.append(report)
                _demand_answers(index, reports)
                checked[0] += shard.bytes
    problems = [problem for report in reports for problem in report.problems]
    return Verdict(index, (*problems, *_strangers(index)), sum(report.lost_pairs for report in reports))


def _demand_answers(index: ShardIndex, reports: Sequence[ShardReport]) -> None:
    """A place that is away is asked for a minute at each of its shards, and none of them is damaged for that."""
    last = reports[-_MOST_UNANSWERED:]
    if len(last) == _MOST_UNANSWERED and all(report.unanswered for report in last):
        raise DataError(
            f"{index.place} did not answer at {_MOST_UNANSWERED} shards in a row: {last[-1].problems[0]}",
            expected="a place that answers",
            mend="check the connection and give the same command again",
        )


def _quick_reports(index: ShardIndex) -> Iterator[ShardReport]:
    sizes = index.file_sizes(index.shards)
    if sizes is None:
        raise DataError(
            f"{index.place} cannot tell how long its files are",
            expected="a folder or URL for --quick",
            mend="leave out --quick",
        )
    for shard in index.shards:
        size = sizes.get(shard.name)
        if size is None:
            yield _missing(shard)
        else:
            yield ShardReport(tuple(_size_problems(shard, size)), shard.samples if size != shard.bytes else 0)


def _missing(shard: Shard) -> ShardReport:
    return ShardReport((f"{shard.name} is missing: {counted(shard.samples, 'pair')}",), shard.samples)


def _strangers(index: ShardIndex) -> Iterator[str]:
    """Shards that lie in the folder though the index does not know them, as when two sets were copied into one."""
    if not isinstance(index.place, LocalPlace):
        return
    known = {shard.name for shard in index.shards}
    for path in sorted(index.folder.glob("*.tar")):
        if path.name not in known:
            yield f"{path.name} is not in the index"


def shard_report(place: Place, shard: Shard) -> ShardReport:
    """A shard from elsewhere is copied here for the time of the check."""
    try:
        with local_file(place, shard.name, limit=2 * shard.bytes) as path:
            return _full_report(path, shard, path.stat().st_size)
    except NotThere:
        return _missing(shard)
    except Unreadable as problem:
        said = f"{shard.name} {problem}: {counted(shard.samples, 'pair')}"
        return ShardReport((said,), shard.samples, unanswered=isinstance(problem, Unanswered))
    except OSError as error:
        return ShardReport(
            (f"{shard.name} cannot be read ({error.strerror}): {counted(shard.samples, 'pair')}",), shard.samples
        )


def _full_report(path: Path, shard: Shard, size: int) -> ShardReport:
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256
        damages = list(_block_damages(file.fileno(), shard))
    lost = sum(damage.pairs for damage in damages)
    if lost == shard.samples and not same:
        return ShardReport((f"{shard.name} is another file than was written: {counted(lost, 'pair')}",), lost)
    problems = [*_size_problems(shard, size)]
    problems += [] if same or problems else [f"{shard.name} does not match its checksum"]
    problems += _member_problems(path, shard)
    return ShardReport((*problems, *_named(damages, "block")), lost)


def _size_problems(shard: Shard, size: int) -> Iterator[str]:
    if size != shard.bytes:
        yield f"{shard.name} has {size:,} bytes instead of {shard.bytes:,}"


def _member_problems(path: Path, shard: Shard) -> Iterator[str]:
    try:
        with tarfile.open(path, "r:") as tar:
            places = [(member.offset_data, member.size) for member in tar]
    except tarfile.TarError as error:
        yield f"{shard.name} is no whole tar: {error}"
        return
    if places != [(offset, size) for offset, size, *_ in shard.blocks.tolist()]:
        yield f"{shard.name} has its blocks in other places than the index says"


@dataclass(frozen=True)
class _Damage:
    """Something wrong, and how many pairs it affects."""

    what: str
    pairs: int


def _block_damages(file: int, shard: Shard) -> Iterator[_Damage]:
    for number, block in enumerate(shard.blocks):
        where = f"{shard.name} block {number}"
        try:
            pairs = _decoded(file, block)
        except DamagedBlock as damage:
            yield _Damage(f"{where} {damage}", int(block[2]))
            continue
        if not all_sound(pairs):
            yield from _pair_damages(pairs, where)


def _decoded(file: int, block: Any) -> list[Pair]:
    offset, size, samples, expected = block.tolist()
    data = os.pread(file, size, offset)
    if len(data) != size:
        raise DamagedBlock(f"has {len(data)} bytes of {size}")
    if checksum(data) != expected:
        raise DamagedBlock("does not match its checksum")
    return decode_block(data, samples)


def _pair_damages(pairs: Sequence[Pair], where: str) -> Iterator[_Damage]:
    for row, pair in enumerate(pairs):
        problem = pair_problem(pair, f"{where} row {row}")
        if problem is not None:
            yield _Damage(problem, 1)


def _named(damages: Sequence[_Damage], noun: str) -> Iterator[str]:
    for damage in islice(damages, _MOST_LINES):
        yield f"{damage.what}: {counted(damage.pairs, 'pair')}" if damage.pairs > 1 else damage.what
    further = damages[_MOST_LINES:]
    if further:
        pairs = sum(damage.pairs for damage in further)
        yield f"and {counted(len(further), f'such {noun}')} more: {counted(pairs, 'pair')}"
