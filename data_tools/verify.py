"""`largede-data verify`: every checksum, every count, every block, every pair of a folder of shards."""

import hashlib
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_tools.progress import with_progress
from largede.errors import DataError
from largede.streams.block import DamagedBlock
from largede.streams.index import Shard, ShardIndex
from largede.streams.pair import Pair
from largede.streams.read import read_block


def verify(folder: Path, threads: int | None = None) -> tuple[ShardIndex, list[str]]:
    """The index and one line for each thing that is wrong, in the order of the shards; none means all is sound.

    Raises DataError when the index itself cannot be used. A shard is checked by one thread, `threads` shards at a time
    (None: one for each processor).
    """
    index = ShardIndex.read(folder)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        reports = pool.map(lambda shard: shard_problems(index, shard), index.shards)
        return index, [problem for report in with_progress(reports, "checking", "shards") for problem in report]


def shard_problems(index: ShardIndex, shard: Shard) -> list[str]:
    """What is wrong with one shard, one line each."""
    missing = index.file_problem(shard)
    if missing:
        return [f"{shard.name} {missing}"]
    path = index.folder / shard.name
    with path.open("rb") as stream:
        changed = hashlib.file_digest(stream, "sha256").hexdigest() != shard.sha256
    problems = [f"{shard.name} does not match its checksum"] if changed else []
    return problems + list(_member_problems(path, shard)) + list(_block_problems(path, shard))


def _member_problems(path: Path, shard: Shard) -> Iterator[str]:
    try:
        with tarfile.open(path, "r:") as tar:
            places = [(member.offset_data, member.size) for member in tar]
    except tarfile.TarError as error:
        yield f"{shard.name} is no whole tar: {error}"
        return
    if places != [(offset, size) for offset, size, *_ in shard.blocks.tolist()]:
        yield f"{shard.name} has its blocks in other places than the index says"


def _block_problems(path: Path, shard: Shard) -> Iterator[str]:
    for number, block in enumerate(shard.blocks):
        where = f"{shard.name} block {number}"
        try:
            for row, pair in enumerate(read_block(path.parent, path.name, block)):
                Pair.from_dict(pair.to_dict(), f"{where} row {row}")
        except DamagedBlock as damage:
            yield f"{where} {damage}"
        except DataError as error:
            yield error.given


def demand_sound(folder: Path, problems: list[str]) -> None:
    """Raise DataError that lists every problem, if there is one."""
    if problems:
        raise DataError(
            f"{folder} is damaged:\n    " + "\n    ".join(problems),
            expected="shards as `largede-data shard` wrote them",
            mend="copy those shards again from a sound place, or make them again",
        )
