"""Refreshed hard negatives: which generation of the shards a batch is of, and when a run takes a new one.

A generation is a set of shards with the pairs of the run's own shards in the same places; their negatives alone differ.
So the order of pairs is the same, and a batch is a function of (data, recipe, step, which generation). The last is
decided between two batches, `data.refresh_steps` apart, by all ranks together, and is written down before a batch is
read that depends on it: `largede.runs.negatives` says where.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from largede.errors import CheckpointError, DataError
from largede.files import read_json_object, sha256_file
from largede.runs.negatives import (
    DECISIONS,
    GENERATION,
    GENERATIONS,
    Adopted,
    Decisions,
    generation_names,
    read_decisions,
    write_decisions,
)
from largede.streams.block import DamagedBlock
from largede.streams.index import ShardIndex
from largede.streams.pair import Pair
from largede.streams.read import read_block
from largede.streams.sources import Source
from largede.training.collectives import all_or_none, objects_of_ranks, on_rank_0, rank, world_size

BLOCKS_COMPARED = 8
"""Of a generation that is offered, spread over it, pair by pair with the run's own shards."""


class Refreshed:
    """The generations of one run. Collective, as are `decide` and `go_on_from`."""

    def __init__(self, run: Path, every: int | None, sources: Sequence[Source]) -> None:
        self.run = run
        self.every = every
        self.sources = sources
        self.refused: set[str] = set()
        own = all_or_none(lambda: read_decisions(run) if rank() == 0 else Decisions())
        self.decisions = objects_of_ranks(own)[0]

    def sources_at(self, place: int) -> Sequence[Source]:
        """What batch `place` is read from. Raises DataError when a generation that was decided on is gone."""
        adopted = self.decisions.at(place)
        return self.sources if adopted is None else [Source("", self._open(adopted))]

    def decide(self, place: int, say: Callable[[str], None]) -> bool:
        """Whether the batches from `place` on are of another generation than those before. Collective.

        Raises:
            DataError: it was decided in an earlier part of the run, and the generation is gone.
        """
        if place > self.decisions.decided and self.every and place % self.every == 0:
            self._look(place, say)
        return any(found.from_batch == place for found in self.decisions.generations)

    def go_on_from(self, record: dict[str, Any], checkpoint: Path) -> None:
        """Take over what a checkpoint knows. Collective.

        Raises:
            CheckpointError: the run folder says something else of the batches before the checkpoint.
        """
        known = Decisions.from_dict(record)
        if self.decisions.decided < known.decided:
            self._settle(known)  # the file was lost, or is that of an older copy of the run
        if self.decisions.until(known.decided) != known.generations:
            raise CheckpointError(
                f"{self.run / DECISIONS} names other generations than {checkpoint}: {self.decisions.to_dict()}",
                expected=f"{known.to_dict()}, and later ones",
                mend=f"bring back the {DECISIONS} of this run, or remove it: the checkpoint knows what it has to say",
            )

    def _look(self, place: int, say: Callable[[str], None]) -> None:
        """Take the newest generation that fits, if one is newer than that at work; write down what was decided."""
        adopted = self.decisions.generations
        at_work = adopted[-1].name if adopted else ""
        offered = objects_of_ranks([name for name in generation_names(self.run) if name > at_work])[0]
        for name in sorted(set(offered) - self.refused, reverse=True):
            problem, fingerprint = self._judge(self.run / GENERATIONS / name)
            if not problem:
                self._settle(Decisions(place, (*adopted, Adopted(place, name, fingerprint))))
                say(f"hard negatives of {name} from here on")
                return
            self.refused.add(name)
            say(f"warning: the hard negatives of {name} are not taken: {problem}; going on with {at_work or 'the old'}")
        self._settle(Decisions(place, adopted))

    def _settle(self, decisions: Decisions) -> None:
        """Known to all ranks and on the disk before a batch depends on it. Collective."""
        on_rank_0(lambda: write_decisions(self.run, decisions))
        self.decisions = decisions

    def _judge(self, folder: Path) -> tuple[str, str]:
        """What is wrong with a generation, in the words of the first rank that finds something, and its fingerprint.

        Every rank looks at its share of the shards. Collective.
        """
        [base] = [source.index for source in self.sources]
        try:
            index = generation_of(folder, base)
            damaged = [s.name for s in index.shards[rank() :: world_size()] if sha256_file(folder / s.name) != s.sha256]
            problem = (
                f"{', '.join(damaged)} damaged" if damaged else differing_pairs(base, index) if rank() == 0 else ""
            )
            found = problem, index.fingerprint
        except DataError as error:
            found = error.given, ""
        except OSError as error:
            found = str(error), ""
        verdicts = objects_of_ranks(found)
        return next((verdict for verdict in verdicts if verdict[0]), verdicts[0])

    def _open(self, adopted: Adopted) -> ShardIndex:
        folder = self.run / GENERATIONS / adopted.name
        index = ShardIndex.load(folder) if folder.is_dir() else None
        if index is None or index.fingerprint != adopted.fingerprint:
            raise DataError(
                f"{folder} is {'gone' if index is None else 'another one'}, and from batch {adopted.from_batch} on the "
                "run reads it",
                expected=f"the shards {adopted.fingerprint[:12]}… that it was decided on with",
                mend="bring the folder back from a copy, or begin another run with --run.start_from",
            )
        return index


def generation_of(folder: Path, base: ShardIndex) -> ShardIndex:
    """The shards of a generation of `base`. Raises DataError for one of other shards, or one that is not whole."""
    facts = read_json_object(folder / GENERATION)
    if facts.get("base") != base.fingerprint:
        raise _unfit(f"it was made of other pairs ({str(facts.get('base'))[:12]}…, not {base.fingerprint[:12]}…)")
    index = ShardIndex.load(folder)
    if index.fingerprint != facts.get("fingerprint"):
        raise _unfit("its shards are not those that were written")
    if not lie_alike(index, base):
        raise _unfit("its pairs lie in other places")
    return index


def differing_pairs(base: ShardIndex, generation: ShardIndex) -> str:
    """Where some blocks of a generation hold other pairs than `base`; nothing where they agree."""
    ends = np.cumsum([len(shard.blocks) for shard in base.shards])
    for number in np.unique(np.linspace(0, ends[-1] - 1, BLOCKS_COMPARED).astype(np.int64)).tolist():
        shard = int(np.searchsorted(ends, number, side="right"))
        block = number - int(ends[shard]) + len(base.shards[shard].blocks)
        try:
            if pairs_of_block(base, shard, block) != pairs_of_block(generation, shard, block):
                return f"block {block} of {base.shards[shard].name} holds other pairs"
        except DamagedBlock as damage:
            return f"block {block} of {base.shards[shard].name} {damage}"
    return ""


def pairs_of_block(index: ShardIndex, shard: int, block: int) -> list[Pair]:
    """Without their negatives."""
    entry = index.shards[shard]
    return [pair.without_negatives() for pair in read_block(index.place, entry.name, entry.blocks[block])]


def lie_alike(one: ShardIndex, other: ShardIndex) -> bool:
    """Whether two sets have as many pairs in every block of shards of the same names."""
    return [s.name for s in one.shards] == [s.name for s in other.shards] and all(
        np.array_equal(mine, yours) for mine, yours in zip(one.pairs_of_blocks, other.pairs_of_blocks, strict=True)
    )


def _unfit(given: str) -> DataError:
    return DataError(given, expected="the run's own pairs with other negatives", mend="mine it anew from this run")
