"""`largede-data dedup`: of pairs that are equal or nearly so in query and passage, the first in reading order stays.

Two pairs are duplicates when both sides agree: two questions about one passage are two pairs. So each band of the
MinHash signature joins hashes of the query's shingles with hashes of the passage's into one 60-bit number. Stages:

1. signatures: each part writes, for each band, (number, row) sorted; one more band holds a hash of all the words, equal
   for exact duplicates.
2. matches: datatrove merges each band over all parts and writes the rows that agree.
3. clusters: rows connected by matches; all but the first of each cluster are listed for removal, part by part.
4. dedup: each part is read again, and the listed rows are left out.
"""

import resource
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.utils.hashing import HashConfig

from data_tools.pairs import lines_of, parse_pair
from data_tools.pipelines.clusters import Places, first_of_cluster
from data_tools.pipelines.job import Plan
from data_tools.pipelines.steps import Drop, Judge, ReadPart, shown_pair
from data_tools.pipelines.words import Hashes, mixed, run_hashes, whole_hash, words
from data_tools.pipelines.work import Stage
from largede.errors import DataError
from largede.files import read_json_object, write_json, writing
from largede.streams.pair import Pair
from largede.text import passage_text

EXACT, NEAR = "exact duplicate", "near duplicate"
# Datatrove cuts a band off at 2^61 - 1.
_SHIFT = np.uint64(4)
_EXAMPLES = 5
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class DedupSettings:
    """`bands` of `query_hashes` + `passage_hashes` MinHashes each; pairs that agree in one band are near duplicates.

    With Jaccard similarities q and p of the shingles (runs of words) of queries and passages, that happens with
    probability 1 - (1 - q^query_hashes * p^passage_hashes)^bands. No bands: exact duplicates only.
    """

    bands: int = 14
    query_hashes: int = 4
    passage_hashes: int = 4
    query_ngram: int = 2
    passage_ngram: int = 5
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least in (("bands", 0), ("query_hashes", 1), ("passage_hashes", 1),
                            ("query_ngram", 1), ("passage_ngram", 1)):  # fmt: skip
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise DataError(f"--{flag} {getattr(self, name)}", expected=f"{least} or more", mend=f"raise --{flag}")


def dedup_plan(settings: DedupSettings, skip_bad: int = 0) -> Plan:
    return Plan(
        "dedup", asdict(settings), _judges, partial(_stages, settings, skip_bad), facts=_facts, skip_bad=skip_bad
    )


def _stages(settings: DedupSettings, skip_bad: int, work: Path, parts: list[Path]) -> list[Stage]:
    signatures, matches, removals = work / "signatures", work / "matches", work / "removals"
    bands = settings.bands + 1
    return [
        Stage("signatures", len(parts), [ReadPart(parts, skip_bad), WriteSignatures(settings, signatures)]),
        Stage("matches", bands, [FindMatches(signatures, matches, bands)]),
        Stage("clusters", 1, [FindClusters(matches, removals, len(parts), settings.bands)]),
    ]


def _judges(work: Path) -> list[Judge]:
    return [Listed(work / "removals")]


class MinHash:
    """Signatures of pairs: one 60-bit number for each band, and last the one of all the words."""

    def __init__(self, settings: DedupSettings) -> None:
        self.settings = settings
        numbers = np.random.default_rng(settings.seed)
        self._hashes_of_band = settings.query_hashes, settings.passage_hashes
        self._query, self._passage = (
            _permutations(numbers, (settings.bands, hashes)) for hashes in self._hashes_of_band
        )

    def signatures(self, pairs: Sequence[Pair]) -> Hashes:
        """(pairs, bands + 1) numbers."""
        query, passage = self._hashes_of_band
        shape = len(pairs), self.settings.bands, query + passage
        minima, exact = np.empty(shape, np.uint64), np.empty((len(pairs), 2), np.uint64)
        for row, pair in enumerate(pairs):
            sides = words(pair.query), words(passage_text(pair.title, pair.positive))
            exact[row] = [whole_hash(side) for side in sides]
            minima[row, :, :query] = _least(_shingles(sides[0], self.settings.query_ngram), *self._query)
            minima[row, :, query:] = _least(_shingles(sides[1], self.settings.passage_ngram), *self._passage)
        return np.concatenate([_joined(minima), _joined(exact)[:, None]], axis=1) >> _SHIFT


def _permutations(numbers: np.random.Generator, shape: tuple[int, int]) -> tuple[Hashes, Hashes]:
    """x -> a x + b modulo 2^64 with odd a is a bijection of 64-bit numbers; x is well mixed already."""
    factors, terms = numbers.integers(0, 2**64, (2, *shape), np.uint64)
    return factors | np.uint64(1), terms


def _shingles(found: list[str], length: int) -> Hashes:
    """Hashes of the runs of words; a text without words has one shingle, as all such texts are equal."""
    hashes = run_hashes(found, length)
    return hashes if len(hashes) else np.zeros(1, np.uint64)


def _least(shingles: Hashes, factors: Hashes, terms: Hashes) -> Hashes:
    """The least hash of the shingles under each permutation, in the shape of the permutations."""
    least: Hashes = (shingles[:, None, None] * factors + terms).min(axis=0)
    return least


def _joined(hashes: Hashes) -> Hashes:
    """One hash of those along the last axis, in which their order counts."""
    total = np.zeros(hashes.shape[:-1], np.uint64)
    for place in range(hashes.shape[-1]):
        total = mixed(total + hashes[..., place] + np.uint64(0x9E3779B97F4A7C15))
    return total


_RECORD = np.dtype([("number", "<u8"), ("row", "<u4")])


class WriteSignatures(PipelineStep):
    """In the files that datatrove's second MinHash stage reads: one for each band and part, sorted by number."""

    type, name = "dedup", "signatures"

    def __init__(self, settings: DedupSettings, folder: Path) -> None:
        super().__init__()
        self.settings = settings
        self.folder = folder

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        signatures, rows = self._signatures(data)
        for band in range(self.settings.bands + 1):
            records = np.empty(len(rows), _RECORD)
            records["number"], records["row"] = signatures[:, band], rows
            records.sort(order=("number", "row"))
            with writing(self.folder / f"bucket_{band:03d}" / f"{rank:05d}.minhash.sig") as stream:
                stream.write(records.tobytes())
        return iter(())

    def _signatures(self, data: Iterator[Document]) -> tuple[Hashes, npt.NDArray[np.uint32]]:
        """(pairs, bands + 1) numbers and the pairs' rows."""
        minhash = MinHash(self.settings)
        usable = (d.metadata for d in data if "drop" not in d.metadata)
        blocks, rows = [np.empty((0, self.settings.bands + 1), np.uint64)], [np.empty(0, np.uint32)]
        while batch := list(islice(usable, _ROWS_AT_ONCE)):
            blocks.append(minhash.signatures([each["pair"] for each in batch]))
            rows.append(np.array([each["row"] for each in batch], np.uint32))
        return np.concatenate(blocks), np.concatenate(rows)


class FindMatches(MinhashDedupBuckets):
    """Task n merges band n of all parts. It needs a file handle for each part."""

    def __init__(self, signatures: Path, matches: Path, bands: int) -> None:
        config = MinhashConfig(num_buckets=bands, hashes_per_bucket=1, hash_config=HashConfig(precision=64))
        super().__init__(str(signatures), str(matches), config=config, lines_to_buffer=1000)

    def run(self, data: None = None, rank: int = 0, world_size: int = 1) -> None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        super().run(data, rank, world_size)


class FindClusters(PipelineStep):
    """Which rows go, and which stay for them. Holds the matches of all bands in memory, each once: 16 bytes."""

    type, name = "dedup", "clusters"

    def __init__(self, matches: Path, removals: Path, parts: int, exact_band: int) -> None:
        super().__init__()
        self.matches = matches
        self.removals = removals
        self.parts = parts
        self.exact_band = exact_band

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        exact = _matches([self._band(self.exact_band)])
        every = _matches([self._band(band) for band in range(self.exact_band + 1)])
        places, first = first_of_cluster(every)
        equal, first_equal = first_of_cluster(exact)
        is_exact = np.isin(places, equal[equal != first_equal])
        gone = places != first
        removed, kept, is_exact = places[gone], first[gone], is_exact[gone]
        for part in range(self.parts):
            mine = removed >> np.uint64(32) == part
            with writing(self.removals / f"{part:05d}.npy") as stream:
                np.save(stream, np.stack([removed[mine], kept[mine], is_exact[mine].astype(np.uint64)]))
        write_json(self.removals / "clusters.json", _summary(removed, kept, is_exact))

    def _band(self, band: int) -> Path:
        return self.matches / f"{band:05d}_00.dups"


def _matches(files: list[Path]) -> Places:
    """(matches, 2) places, each match once; a place is part * 2^32 + row."""
    found = np.empty((0, 2), np.uint64)
    for path in files:
        numbers = np.fromfile(path, "<u4").reshape(-1, 4).astype(np.uint64)
        pairs = (numbers[:, 0::2] << np.uint64(32)) | numbers[:, 1::2]
        found = np.unique(np.concatenate([found, pairs]), axis=0)
    return found


def _summary(removed: Places, kept: Places, is_exact: npt.NDArray[np.bool_]) -> dict[str, Any]:
    sizes = np.unique(kept, return_counts=True)[1] + 1
    examples = [
        {"name": kind if number == 1 else f"{kind}, example {number}", "removed": int(place), "kept": int(stays)}
        for kind, wanted in ((EXACT, is_exact), (NEAR, ~is_exact))
        for number, (place, stays) in enumerate(islice(zip(removed[wanted], kept[wanted], strict=True), _EXAMPLES), 1)
    ]
    return {"clusters": len(sizes), "largest": int(sizes.max(initial=0)), "examples": examples}


class Listed(Judge):
    """Drops the rows that the clusters list for this part."""

    name = "listed for removal"

    def __init__(self, removals: Path) -> None:
        super().__init__()
        self.removals = removals
        self._kinds: dict[int, str] = {}

    def prepare(self, rank: int) -> None:
        places, _, is_exact = np.load(self.removals / f"{rank:05d}.npy")
        rows = (places & np.uint64(2**32 - 1)).tolist()
        self._kinds = dict(zip(rows, np.where(is_exact, EXACT, NEAR).tolist(), strict=True))

    def judge(self, pair: Pair, row: int) -> Drop | None:
        kind = self._kinds.get(row)
        return Drop(kind) if kind else None


def _facts(work: Path, parts: list[Path]) -> dict[str, Any]:
    """Clusters and, for each kind of duplicate, examples beside the pair that stays for them."""
    found = read_json_object(work / "removals" / "clusters.json")
    wanted = {place for example in found["examples"] for place in (example["removed"], example["kept"])}
    pairs = _pairs_at(wanted, parts)
    examples = {
        each["name"]: {"removed": shown_pair(pairs[each["removed"]]), "kept": shown_pair(pairs[each["kept"]])}
        for each in found["examples"]
    }
    return {
        "clusters of duplicates": found["clusters"],
        "pairs in the largest cluster": found["largest"],
        "examples": examples,
    }


def _pairs_at(places: set[int], parts: list[Path]) -> dict[int, Pair]:
    """The pairs of some rows; a part is read up to the last row that is wanted of it."""
    found: dict[int, Pair] = {}
    for part in sorted({place >> 32 for place in places}):
        rows = {place & (2**32 - 1) for place in places if place >> 32 == part}
        lines = (line for line in lines_of(parts[part]) if not line.isspace())
        for row, line in enumerate(islice(lines, max(rows) + 1)):
            if row in rows:
                found[part << 32 | row] = parse_pair(line, f"{parts[part]} row {row}")
    return found
