"""A generation: a set of shards with the pairs of another in the same places, and new negatives."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from largede.errors import DataError
from largede.files import fingerprint_of, write_json, writing_folder
from largede.retrieval.mine.sources import ShardPairs
from largede.runs.negatives import GENERATION
from largede.streams.index import Shard, ShardIndex
from largede.streams.pair import Pair
from largede.streams.places.local import LocalPlace


def write_generation(base: ShardIndex, pairs: Iterator[Pair], out: Path, facts: dict[str, Any]) -> ShardIndex:
    """Write `pairs`, those of `base` in its order with other negatives, to the new folder `out`, whole or not at all.

    Raises DataError when they are other pairs, fewer or more.
    """
    from data_tools.tars import write_shard

    with writing_folder(out) as folder:
        shards, first_block = [], 0
        for shard in base.shards:
            blocks = _blocks(base, shard, pairs)
            shards.append(write_shard(folder / shard.name, blocks, first_block))
            first_block += len(shard.blocks)
        if next(pairs, None) is not None:
            raise _other_pairs(base, "more pairs")
        made_from = fingerprint_of([base.fingerprint, facts])
        index = ShardIndex(LocalPlace(folder), base.seed, made_from, tuple(shards))
        index.save(folder)
        write_json(folder / GENERATION, {**facts, "base": base.fingerprint, "fingerprint": index.fingerprint})
    return ShardIndex.load(out)


def _blocks(base: ShardIndex, shard: Shard, pairs: Iterator[Pair]) -> Iterator[Sequence[Pair]]:
    own = ShardPairs(base)
    for number in range(len(shard.blocks)):
        before = own.block(shard.name, number, shard.blocks[number])
        block = list(islice(pairs, len(before)))
        if [pair.without_negatives() for pair in block] != [pair.without_negatives() for pair in before]:
            raise _other_pairs(base, f"other pairs in block {number} of {shard.name}")
        yield block


def _other_pairs(base: ShardIndex, what: str) -> DataError:
    return DataError(
        f"the mined pairs have {what} than {base.place}",
        expected="the pairs of the shards, in their order",
        mend="remove negatives/work from the run folder and start again",
    )
