"""The sources of a run: named shard sets, and the one order over all of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from largede.config.recipe import Batches, DataConfig
from largede.streams.index import ShardIndex
from largede.streams.lanes import SourceLanes
from largede.streams.mixture import PeriodTable, period_table, shares_of
from largede.streams.order import GlobalOrder
from largede.streams.places import place_of

# With fewer blocks a lane the longest lane could be much longer than the shortest, and be given no more often.
BLOCKS_PER_LANE = 16


@dataclass(frozen=True, eq=False)
class Source:
    """A shard set of a mixture. The only source of a run needs no name; weights are all given or none."""

    name: str
    index: ShardIndex
    weight: float | None = None


@dataclass(frozen=True)
class Mixing:
    """How rows are shared out (see `DataConfig`); means nothing for one source."""

    temperature: float = 1.0
    batches: Batches = "mixed"
    period: int = 1000

    @classmethod
    def of(cls, data: DataConfig) -> "Mixing":
        return cls(data.mixing_temperature, data.batches, data.mixing_period)


def open_sources(data: DataConfig, *, allow_pipe: bool = False, rank: int = 0, world_size: int = 1) -> list[Source]:
    """The sources a recipe names, in the order of their names; one without a name when there is no mixture.

    Raises DataError, as `ShardIndex.load` and `place_of` do.
    """

    def load(place: str) -> ShardIndex:
        return ShardIndex.load(place_of(place, allow_pipe=allow_pipe), rank=rank, world_size=world_size)

    if not data.sources:
        return [Source("", load(data.shards))]
    return [Source(name, load(source.shards), source.weight) for name, source in sorted(data.sources.items())]


def order_of_sources(sources: Sequence[Source], mixing: Mixing, seed: int, batch_size: int, lanes: int) -> GlobalOrder:
    """The global order over `sources`. The lanes of a mixture's source may be fewer, see `lanes_of_source`.

    Raises RecipeError or DataError for numbers that do not fit each other or the data.
    """
    if len(sources) == 1:
        [index] = [source.index for source in sources]
        return GlobalOrder.of_one_source(index.pairs_of_blocks, seed, batch_size, lanes, samples_of_shards(index))
    table = table_of_sources(sources, mixing, seed, batch_size)
    rows = table.fewest_rows_S.tolist()
    walks = [
        # The name is part of the seed, or two sources of equal shape would be walked in the same order.
        SourceLanes(
            source.index.pairs_of_blocks,
            f"{seed}/{source.name}",
            lanes_of_source(source.index, fewest_rows, lanes),
            samples_of_shards(source.index),
        )
        for source, fewest_rows in zip(sources, rows, strict=True)
    ]
    return GlobalOrder(walks, table)


def table_of_sources(sources: Sequence[Source], mixing: Mixing, seed: int, batch_size: int) -> PeriodTable:
    """Raises RecipeError for a source that gets nothing."""
    names = [source.name for source in sources]
    sizes = [source.index.samples for source in sources]
    shares = shares_of(sizes, [source.weight for source in sources], mixing.temperature)
    return period_table(names, shares, batch_size, mixing.period, mixing.batches, seed)


def lanes_of_source(index: ShardIndex, fewest_rows: int, lanes: int) -> int:
    """As many lanes as asked for, if each has blocks enough and gives a row to every batch that the source is in.

    Were there more lanes than rows, batches would take turns among them, and every rank would read every lane.
    """
    blocks = sum(len(shard.blocks) for shard in index.shards)
    return max(1, min(lanes, fewest_rows, blocks // BLOCKS_PER_LANE))


def samples_of_shards(index: ShardIndex) -> list[int]:
    return [shard.samples for shard in index.shards]


def fingerprint_of_sources(sources: Sequence[Source], order: GlobalOrder) -> str:
    """Identifies the pairs, their places and how they are mixed: equal fingerprints give equal streams."""
    if len(sources) == 1:
        return sources[0].index.fingerprint
    digest = hashlib.sha256(order.table.count_PS.astype("<i8").tobytes())
    for source, walk in zip(sources, order.sources, strict=True):
        digest.update(f"{source.name} {source.index.fingerprint} {walk.lanes}\n".encode())
    return digest.hexdigest()
