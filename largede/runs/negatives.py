"""Generations of hard negatives in a run folder: which there are, and from which batch on the run reads which.

    negatives.json          what the run decided: {"decided": 400, "generations": [{"from_batch": 200, "name": …}, …]}
    negatives/gen-00001/    a set of shards with the run's pairs in their places, and generation.json
    negatives/work/         what `largede mine --follow` needs on its way
    negatives/follower.json the claim of the one that is at work

Batches are counted as the order of the data counts them, batches that a rewind left out included. `decided` is the last
batch before which the run looked for a generation: what it found or did not find before is never asked again, so a run
that goes on from any checkpoint reads what it read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from largede.files import damaged_file, read_json_object, write_json

DECISIONS = "negatives.json"
GENERATIONS = "negatives"
GENERATION_PATTERN = "gen-?????"
GENERATION = "generation.json"
FOLLOWER = "follower.json"

KEPT_UNREAD = 2
"""Newest generations that stay though the run has not taken them yet: it may be looking at one while another comes."""


@dataclass(frozen=True)
class Adopted:
    """The generation `name` is read from batch `from_batch` on; `fingerprint` is that of its shards."""

    from_batch: int
    name: str
    fingerprint: str


@dataclass(frozen=True)
class Decisions:
    """What a run has decided so far, in the order of batches."""

    decided: int = 0
    generations: tuple[Adopted, ...] = ()

    def at(self, batch: int) -> Adopted | None:
        """The generation that the batch is of; None: the shards the run was begun with."""
        return next((found for found in reversed(self.generations) if found.from_batch <= batch), None)

    def until(self, batch: int) -> tuple[Adopted, ...]:
        """Those that were decided up to a batch."""
        return tuple(found for found in self.generations if found.from_batch <= batch)

    def to_dict(self) -> dict[str, Any]:
        return {"decided": self.decided, "generations": [asdict(found) for found in self.generations]}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Decisions":
        """Raises TypeError, KeyError or ValueError for what `to_dict` never gives."""
        if not record:
            return cls()
        found = tuple(
            Adopted(int(g["from_batch"]), str(g["name"]), str(g["fingerprint"])) for g in record["generations"]
        )
        places = [g.from_batch for g in found]
        if places != sorted(set(places)) or (places and places[-1] > int(record["decided"])):
            raise ValueError("its generations are not in the order of batches")
        return cls(int(record["decided"]), found)


def read_decisions(run: Path) -> Decisions:
    """What the run has decided; nothing where there is no file. Raises DataError when it is damaged."""
    path = run / DECISIONS
    if not path.is_file():
        return Decisions()
    mend = "bring it back from a copy, or remove it: the checkpoint that the run goes on from knows it, too"
    record = read_json_object(path, mend)
    try:
        return Decisions.from_dict(record)
    except (TypeError, KeyError, ValueError) as error:
        raise damaged_file(path, str(error), mend) from None


def write_decisions(run: Path, decisions: Decisions) -> None:
    write_json(run / DECISIONS, decisions.to_dict())


def generation_names(run: Path) -> list[str]:
    """Whole generations, oldest first; one that is being written has no such name."""
    return sorted(path.name for path in (run / GENERATIONS).glob(GENERATION_PATTERN))


def next_name(run: Path) -> str:
    """A name that no generation of the run ever had, removed ones included."""
    known = [*generation_names(run), *(found.name for found in read_decisions(run).generations)]
    return f"gen-{1 + max((int(name.removeprefix('gen-')) for name in known), default=0):05d}"


def names_to_remove(names: Iterable[str], decisions: Decisions, oldest_batch: int | None) -> list[str]:
    """Generations that no batch from `oldest_batch` on is of; None: of all batches, since nothing is saved yet.

    `oldest_batch` is the first batch that the oldest checkpoint would go on with.
    """
    ends: Sequence[float] = [*(found.from_batch for found in decisions.generations[1:]), float("inf")]
    read = {found.name for found, end in zip(decisions.generations, ends, strict=False) if end > (oldest_batch or 0)}
    newest_read = max((found.name for found in decisions.generations), default="")
    waiting = sorted(name for name in names if name > newest_read)[-KEPT_UNREAD:]
    return [name for name in sorted(names) if name not in read and name not in waiting]
