"""`largede-data dedup`: of pairs that are equal or nearly so in query and passage, the first in reading order stays.

Two pairs are duplicates when both sides agree: two questions about one passage are two pairs. Exact duplicates differ
in case, white space and Unicode compatibility forms alone. Near duplicates are found by words: each band of the MinHash
signature joins hashes of the query's shingles with hashes of the passage's into one number. A short text is a single
shingle with all its signs: one other word makes it another question, and "C++" is not "C#". Stages:

1. signatures: each part writes, for each band, (number, row) sorted; one more band holds a hash of both texts, equal
   for exact duplicates. Beside them a sketch of each pair: a byte of every MinHash.
2. matches: each band is merged over all parts; rows with the same number match.
3. clusters: rows connected by matches are compared by their sketches; what is similar enough to an earlier pair that
   stays is listed for removal, part by part.
4. dedup: each part is read again, and the listed rows are left out.
"""

import bisect
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

from data_tools.inputs import InputFile
from data_tools.pairs import numbered_lines, parse_pair
from data_tools.pipelines.clusters import Limits, Places, Sketches, first_of_cluster, similar_to_first
from data_tools.pipelines.job import Plan
from data_tools.pipelines.ranges import demand
from data_tools.pipelines.steps import Drop, Judge, ReadPart, shown_pair
from data_tools.pipelines.words import Hashes, mixed, plain, run_hashes, text_hash, words
from data_tools.pipelines.work import Stage
from largede.files import read_json_object, write_json, writing
from largede.streams.pair import Pair
from largede.text import passage_text

EXACT, NEAR = "exact duplicate", "near duplicate"
_EXAMPLES = 5
_ROWS_AT_ONCE = 4096
# Of one band, merged in memory at a time; 12 bytes each, and as much again several times while they are sorted.
_RECORDS_AT_ONCE = 1 << 25
_END_SIGNS = " .!?,;:…"


@dataclass(frozen=True)
class DedupSettings:
    """Least Jaccard similarities of the shingles (runs of words) of both sides, and how candidates are found.

    `bands` hold `query_hashes` + `passage_hashes` MinHashes each; pairs that agree in one band are candidates. With
    similarities q and p that happens with probability 1 - (1 - q^query_hashes * p^passage_hashes)^bands. Similarities
    are estimated from all MinHashes of a side. No bands: exact duplicates only.

    A query of fewer than `whole_query_words`, or a passage of fewer than `whole_passage_words`, is similar only to the
    same text (folded, signs at its end aside). With the given numbers, one word replaced in the middle makes a text
    dissimilar up to about that length anyway: of n words (n - 3) of (n + 1) pairs of neighbours stay.
    """

    query_similarity: float = 0.8
    passage_similarity: float = 0.7
    bands: int = 14
    query_hashes: int = 3
    passage_hashes: int = 3
    query_ngram: int = 2
    passage_ngram: int = 5
    whole_query_words: int = 20
    whole_passage_words: int = 30
    seed: int = 1

    def __post_init__(self) -> None:
        counts = ("query_hashes", "passage_hashes", "query_ngram", "passage_ngram")
        demand(self, ["bands"], lambda bands: bands >= 0, "0 or more")
        demand(self, [*counts, "whole_query_words", "whole_passage_words"], lambda count: count >= 1, "1 or more")
        demand(self, ["query_similarity", "passage_similarity"], lambda x: 0 < x <= 1, "above 0, at most 1")


def dedup_plan(settings: DedupSettings, skip_bad: int = 0) -> Plan:
    return Plan(
        "dedup", asdict(settings), _judges, partial(_stages, settings, skip_bad), facts=_facts, skip_bad=skip_bad
    )


def _stages(settings: DedupSettings, skip_bad: int, work: Path, parts: list[InputFile]) -> list[Stage]:
    signatures, matches, removals, sketches = (
        work / name for name in ("signatures", "matches", "removals", "sketches")
    )
    bands = settings.bands + 1
    return [
        Stage("signatures", len(parts), [ReadPart(parts, skip_bad), WriteSignatures(settings, signatures, sketches)]),
        Stage("matches", bands, [FindMatches(signatures, matches)]),
        Stage("clusters", 1, [FindClusters(settings, matches, sketches, removals, len(parts))]),
    ]


def _judges(work: Path) -> list[Judge]:
    return [Listed(work / "removals")]


class MinHash:
    """Signatures and sketches of pairs."""

    def __init__(self, settings: DedupSettings) -> None:
        self.settings = settings
        numbers = np.random.default_rng(settings.seed)
        self._hashes_of_band = settings.query_hashes, settings.passage_hashes
        self._query, self._passage = (
            _permutations(numbers, (settings.bands, hashes)) for hashes in self._hashes_of_band
        )

    def signatures(self, pairs: Sequence[Pair]) -> tuple[Hashes, Sketches]:
        """(pairs, bands + 1) numbers, the last of both texts, and (pairs, bands, hashes) sketches."""
        query, passage = self._hashes_of_band
        shape = len(pairs), self.settings.bands, query + passage
        minima, exact = np.empty(shape, np.uint64), np.empty((len(pairs), 2), np.uint64)
        for row, pair in enumerate(pairs):
            sides = pair.query, passage_text(pair.title, pair.positive)
            exact[row] = [text_hash(plain(side)) for side in sides]
            of_query, of_passage = shingles(*sides, self.settings)
            minima[row, :, :query] = _least(of_query, *self._query)
            minima[row, :, query:] = _least(of_passage, *self._passage)
        numbers = np.concatenate([_joined(minima), _joined(exact)[:, None]], axis=1)
        # The least numbers share their leading bits, the trailing ones tell them apart.
        return numbers, mixed(minima).astype(np.uint8)


def _permutations(numbers: np.random.Generator, shape: tuple[int, int]) -> tuple[Hashes, Hashes]:
    """x -> a x + b modulo 2^64 with odd a is a bijection of 64-bit numbers; x is well mixed already."""
    factors, terms = numbers.integers(0, 2**64, (2, *shape), np.uint64)
    return factors | np.uint64(1), terms


def shingles(query: str, passage: str, settings: DedupSettings) -> tuple[Hashes, Hashes]:
    """What the two sides of a pair are compared by: hashes of their runs of words, or one of a whole short text."""
    return (
        _shingles(query, settings.query_ngram, settings.whole_query_words),
        _shingles(passage, settings.passage_ngram, settings.whole_passage_words),
    )


def _shingles(text: str, length: int, whole_below: int) -> Hashes:
    found = words(text)
    if len(found) >= whole_below:
        return run_hashes(found, length)
    # Nothing but signs: all of them count.
    return np.array([text_hash(plain(text).strip(_END_SIGNS) if found else plain(text))], np.uint64)


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
    """In the files that datatrove's second MinHash stage reads: one for each band and part, sorted by number.

    A part's signatures and sketches are in memory until it is written: about 200 bytes for each pair.
    """

    type, name = "dedup", "signatures"

    def __init__(self, settings: DedupSettings, signatures: Path, sketches: Path) -> None:
        super().__init__()
        self.settings = settings
        self.signatures = signatures
        self.sketches = sketches

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        numbers, rows, sketches = self._read(data)
        for band in range(self.settings.bands + 1):
            records = np.empty(len(rows), _RECORD)
            records["number"], records["row"] = numbers[:, band], rows
            records.sort(order=("number", "row"))
            with writing(self.signatures / f"bucket_{band:03d}" / f"{rank:05d}.minhash.sig") as stream:
                stream.write(records.tobytes())
        for name, array in (("rows", rows), ("sketches", sketches)):
            with writing(self.sketches / f"{rank:05d}.{name}.npy") as stream:
                np.save(stream, array)
        return iter(())

    def _read(self, data: Iterator[Document]) -> tuple[Hashes, npt.NDArray[np.uint32], Sketches]:
        """Numbers, rows and sketches of the pairs of one part."""
        minhash = MinHash(self.settings)
        usable = (document.metadata for document in data if "drop" not in document.metadata)
        numbers, sketches = ([block] for block in minhash.signatures([]))
        rows = [np.empty(0, np.uint32)]
        while batch := list(islice(usable, _ROWS_AT_ONCE)):
            found = minhash.signatures([each["pair"] for each in batch])
            numbers.append(found[0])
            sketches.append(found[1])
            rows.append(np.array([each["row"] for each in batch], np.uint32))
        return np.concatenate(numbers), np.concatenate(rows), np.concatenate(sketches)


class FindMatches(PipelineStep):
    """Task n merges band n of all parts, a range of numbers at a time; one file is open at a time.

    Writes (matches, 2) places: each row that has a number of an earlier row, beside the first such row.
    """

    type, name = "dedup", "matches"

    def __init__(self, signatures: Path, matches: Path, at_once: int = _RECORDS_AT_ONCE) -> None:
        super().__init__()
        self.signatures = signatures
        self.matches = matches
        self.at_once = at_once

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        files = sorted((self.signatures / f"bucket_{rank:03d}").glob("*.sig"))
        records = sum(path.stat().st_size for path in files) // _RECORD.itemsize
        ranges = max(1, -(-records // self.at_once))
        found = [
            _matches_between(files, 2**64 * each // ranges, 2**64 * (each + 1) // ranges) for each in range(ranges)
        ]
        with writing(self.matches / f"{rank:05d}.npy") as stream:
            np.save(stream, np.concatenate(found))


def _matches_between(files: list[Path], low: int, high: int) -> Places:
    """The matches of the rows whose numbers are in [low, high)."""
    numbers, places = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for part, path in enumerate(files):
        if not path.stat().st_size:
            continue  # nothing can be mapped
        records = np.memmap(path, _RECORD, "r")
        first, last = (bisect.bisect_left(records, each, key=_number) for each in (low, high))
        numbers.append(records["number"][first:last].copy())
        places.append(records["row"][first:last] | np.uint64(part << 32))
    number, place = np.concatenate(numbers), np.concatenate(places)
    # Stable: equal numbers stay in the order of their places.
    order = np.argsort(number, kind="stable")
    number, place = number[order], place[order]
    starts = np.ones(len(number), bool)
    starts[1:] = number[1:] != number[:-1]
    earliest = place[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
    return np.stack([earliest[~starts], place[~starts]], axis=1)


def _number(record: np.void) -> int:
    return int(record["number"])


class FindClusters(PipelineStep):
    """Which rows go, and which stay for them.

    In memory are the rows that match another in any band, with their sketches, and the matches of one band.
    """

    type, name = "dedup", "clusters"

    def __init__(self, settings: DedupSettings, matches: Path, sketches: Path, removals: Path, parts: int) -> None:
        super().__init__()
        self.settings = settings
        self.matches = matches
        self.sketches = sketches
        self.removals = removals
        self.parts = parts

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        places, first = np.empty(0, np.uint64), np.empty(0, np.uint64)
        for band in range(self.settings.bands + 1):
            # Rows and the first of their clusters stand for all matches so far.
            joined = np.concatenate([np.stack([first, places], axis=1), self._matches(band)])
            places, first = first_of_cluster(joined)
        removed, kept = similar_to_first(places, first, self._sketches_at(places), self._limits())
        equal = np.unique(self._matches(self.settings.bands)[:, 1])
        is_exact = np.isin(removed, equal)
        for part in range(self.parts):
            mine = removed >> np.uint64(32) == part
            with writing(self.removals / f"{part:05d}.npy") as stream:
                np.save(stream, np.stack([removed[mine], kept[mine], is_exact[mine].astype(np.uint64)]))
        write_json(self.removals / "clusters.json", _summary(removed, kept, is_exact))

    def _matches(self, band: int) -> Places:
        found: Places = np.load(self.matches / f"{band:05d}.npy")
        return found

    def _limits(self) -> Limits:
        return Limits(self.settings.query_hashes, self.settings.query_similarity, self.settings.passage_similarity)

    def _sketches_at(self, places: Places) -> Sketches:
        shape = self.settings.bands, self.settings.query_hashes + self.settings.passage_hashes
        found = [np.empty((0, *shape), np.uint8)]
        for part in np.unique(places >> np.uint64(32)).tolist():
            wanted = places[places >> np.uint64(32) == part] & np.uint64(2**32 - 1)
            rows = np.load(self.sketches / f"{part:05d}.rows.npy")
            sketches = np.load(self.sketches / f"{part:05d}.sketches.npy", mmap_mode="r")
            found.append(sketches[np.searchsorted(rows, wanted)])
        return np.concatenate(found)


def _summary(removed: Places, kept: Places, is_exact: npt.NDArray[np.bool_]) -> dict[str, Any]:
    sizes = np.unique(kept, return_counts=True)[1] + 1  # with the one that stays
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


def _facts(work: Path, parts: list[InputFile]) -> dict[str, Any]:
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


def _pairs_at(places: set[int], parts: list[InputFile]) -> dict[int, Pair]:
    """The pairs of some rows; a part is read up to the last row that is wanted of it."""
    found: dict[int, Pair] = {}
    for part in sorted({place >> 32 for place in places}):
        rows = {place & (2**32 - 1) for place in places if place >> 32 == part}
        path = parts[part].path
        for row, (number, line) in enumerate(islice(numbered_lines(path), max(rows) + 1)):
            if row in rows:
                found[part << 32 | row] = parse_pair(line, f"{path} line {number}")
    return found
