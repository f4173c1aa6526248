"""The second stage of `largede-data shard`: places of the shuffled order, cut into shards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tools.shard_settings import Machine
from data_tools.sorted_runs import OBJECT_BYTES, Range, SortedRuns
from data_tools.sources import advance
from data_tools.tars import write_shard
from data_tools.work import Report, Task
from largede.files import writing
from largede.streams.index import Shard
from largede.streams.pair import Pair

_TASKS_PER_WORKER = 4


@dataclass(frozen=True)
class Cut:
    """`pairs` in as few shards as hold at most `shard_pairs` each, their lengths at most one apart."""

    pairs: int
    shard_pairs: int
    block_pairs: int

    @property
    def shards(self) -> int:
        return -(-self.pairs // self.shard_pairs)

    def start(self, shard: int) -> int:
        """The place of the first pair of a shard; for `shards`, the number of all pairs."""
        return shard * self.pairs // self.shards

    def first_blocks(self) -> list[int]:
        """Blocks before each shard."""
        starts = np.array([self.start(shard) for shard in range(self.shards + 1)])
        return [0, *np.cumsum(-(-np.diff(starts) // self.block_pairs)).tolist()]


@dataclass(frozen=True)
class ShardsTask(Task):
    """The shards from `first` to before `stop`, whose blocks are numbered from `first_block`."""

    first: int
    stop: int
    first_block: int

    @property
    def shards(self) -> range:
        return range(self.first, self.stop)

    @staticmethod
    def shards_of(name: str) -> range:
        """The shards of the task called `name`."""
        first, stop = name.split("-")[1:]
        return range(int(first), int(stop))


def shard_tasks(cut: Cut, text_bytes: int, machine: Machine, finished: Sequence[range]) -> list[ShardsTask]:
    """Tasks for all shards, in their order: the finished ones as they are, the others for what `machine` can hold."""
    fits = machine.bytes_per_worker // (2 * _bytes_to_hold(cut, text_bytes))
    most = max(1, min(fits, -(-cut.shards // (_TASKS_PER_WORKER * machine.workers))))
    blocks = cut.first_blocks()
    return [
        ShardsTask(
            f"shards-{r.start:05d}-{r.stop:05d}", len(r) * text_bytes // cut.shards, r.start, r.stop, blocks[r.start]
        )
        for r in sorted([*finished, *_gaps(finished, cut.shards, most)], key=lambda r: r.start)
    ]


def _gaps(finished: Sequence[range], shards: int, most: int) -> Iterator[range]:
    """What the finished ranges leave, in ranges of at most `most`."""
    done = {shard for found in finished for shard in found}
    # Neighbours share the difference between their number and their place among the missing.
    missing = enumerate(shard for shard in range(shards) if shard not in done)
    for _, run in groupby(missing, key=lambda entry: entry[1] - entry[0]):
        numbers = [shard for _, shard in run]
        for start in range(numbers[0], numbers[-1] + 1, most):
            yield range(start, min(start + most, numbers[-1] + 1))


def workers_that_fit(cut: Cut, text_bytes: int, machine: Machine) -> int:
    """Fewer than asked for when shards are so long that not every worker may hold one."""
    fit = machine.bytes // (2 * _bytes_to_hold(cut, text_bytes))
    return max(1, min(machine.workers_for(text_bytes), fit))


def _bytes_to_hold(cut: Cut, text_bytes: int) -> int:
    """Memory that one shard takes."""
    return (text_bytes + OBJECT_BYTES * cut.pairs) // cut.shards


def write_shards(task: ShardsTask, folder: Path, *, runs: SortedRuns, places: NDArray[np.int64], cut: Cut) -> Report:
    """Write the task's shards, and for each its table of blocks, into `folder`."""
    origin = cut.start(task.first)
    held = runs.range(origin, cut.start(task.stop), places)
    shards, block = [], task.first_block
    for number in task.shards:
        rows = range(cut.start(number) - origin, cut.start(number + 1) - origin)
        shard = write_shard(folder / shard_name(number), _blocks(held, rows, cut.block_pairs), block)
        with writing(_table_path(folder, number)) as file:
            np.save(file, shard.blocks, allow_pickle=False)
        shards.append(shard.to_dict())
        block += len(shard.blocks)
    return {"shards": shards}


def _blocks(held: Range, rows: range, block_pairs: int) -> Iterator[list[Pair]]:
    for start in range(rows.start, rows.stop, block_pairs):
        stop = min(start + block_pairs, rows.stop)
        yield list(map(Pair._make, held.rows(start, stop)))
        advance(held.text_bytes(start, stop))


def load_shards(folder: Path, task: ShardsTask, report: Report) -> Iterator[Shard]:
    """The shards that `write_shards` left in `folder`."""
    for number, entry in zip(task.shards, report["shards"], strict=True):
        yield Shard(**{**entry, "blocks": np.load(_table_path(folder, number), allow_pickle=False)})


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.tar"


def _table_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.blocks.npy"
