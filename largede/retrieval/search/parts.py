"""Several processes search one corpus: rank r has shards r, r + W, ..., and the first puts the lists together.

    part-00001-of-00004.npz   lists of the shards that are done, how many those are, and what they are lists of

The processes meet in the folder alone, as those that encode do: there is no collective. Lists are written again after a
shard, but not more often than every few seconds, so whoever is killed repeats one shard or that time. Exact lists equal
those of a single process bit for bit. With an approximate kind each rank builds and searches an index of its own
shards, so those lists depend on W.
"""

import hashlib
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from largede.files import fingerprint_of, writing
from largede.retrieval.corpus import Corpus
from largede.retrieval.document_ids import DocumentIds
from largede.retrieval.encode import Embeddings, read_ids, read_shard
from largede.retrieval.processes import Process
from largede.retrieval.runs import Run
from largede.retrieval.search.approximate import search_lists
from largede.retrieval.search.devices import for_process
from largede.retrieval.search.exact import ExactSearch, ShardOfVectors, run_of
from largede.retrieval.search.lists import TopLists
from largede.retrieval.search_settings import SearchSettings
from largede.waiting import wait_until

_SECONDS_BETWEEN_SAVES = 20.0


def search_together(
    embeddings: Embeddings,
    query_ids: Sequence[str],
    query_QD: np.ndarray,
    depth: int,
    folder: Path,
    process: Process,
    corpus: Corpus | None = None,
    settings: SearchSettings | None = None,
) -> Run | None:
    """Search this process's shards, writing its lists into `folder`; the first process waits for all and merges them.

    Gives the lists that `search` gives to the first process, None to the others. What was done before from the same
    vectors and queries is not done again; remove the folder once the run is kept elsewhere. Every process must hold the
    same query vectors to the last bit.
    """
    from largede.retrieval.search import check_fit

    check_fit(embeddings, query_ids, query_QD, corpus)
    settings = settings or SearchSettings()
    key = _key(embeddings, query_ids, query_QD, depth, settings)
    names: Sequence[str] = corpus.ids if corpus else _names_of(embeddings)
    own = _Part(folder, key, process.rank, process.world_size)
    _search_part(own, embeddings, query_ids, query_QD, depth, names, for_process(settings, process.device))
    if not process.is_first:
        return None
    lists = TopLists.empty(len(query_ids), depth + 1)
    for rank in range(process.world_size):
        part = _Part(folder, key, rank, process.world_size).wait(len(embeddings.shards[rank :: process.world_size]))
        lists.add(part.score_QK, part.row_QK, names)
    return run_of(lists, query_ids, names, depth)


class _Part:
    """The file of one rank. It counts only when its key says that it is of this search."""

    def __init__(self, folder: Path, key: str, rank: int, world_size: int) -> None:
        self.path = folder / f"part-{rank:05d}-of-{world_size:05d}.npz"
        self.rank, self.world_size = rank, world_size
        self._key = key

    def read(self, at_least: int = 0) -> tuple[TopLists, int] | None:
        """The lists and how many shards they are of; None when there are none that can be used."""
        try:
            with np.load(self.path, allow_pickle=False) as found:
                # Each array is read when it is asked for.
                if str(found["key"]) != self._key or int(found["shards"]) < at_least:
                    return None
                return TopLists(found["scores"], found["rows"]), int(found["shards"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, lists: TopLists, shards: int) -> None:
        with writing(self.path) as stream:
            np.savez(stream, key=np.array(self._key), shards=shards, scores=lists.score_QK, rows=lists.row_QK)

    def wait(self, shards: int) -> TopLists:
        """The lists, once they are of all `shards`."""
        found: list[TopLists] = []

        def is_there() -> bool:
            part = self.read(at_least=shards)
            found.extend([part[0]] if part else [])
            return bool(found)

        wait_until(is_there, f"the lists of process {self.rank}")
        return found[0]


def _search_part(
    part: _Part,
    embeddings: Embeddings,
    query_ids: Sequence[str],
    query_QD: np.ndarray,
    depth: int,
    names: Sequence[str],
    settings: SearchSettings,
) -> None:
    mine = range(part.rank, len(embeddings.shards), part.world_size)
    first_rows = np.cumsum([0, *(shard.rows for shard in embeddings.shards)]).tolist()
    lists, done = part.read() or (TopLists.empty(len(query_ids), depth + 1), 0)
    if done == len(mine) and part.path.is_file():
        return
    own = replace(embeddings, shards=tuple(embeddings.shards[k] for k in mine[done:]))
    if not settings.is_exact and len(mine):
        found, _ = search_lists(own, query_QD, depth + 1, settings)
        lists.add(found.score_QK, _in_whole(found.row_QK, own, [first_rows[k] for k in mine]), names)
    elif len(mine):
        exact = ExactSearch(query_ids, query_QD, depth, settings, lists)
        saved_at = time.monotonic()
        for k in mine[done:]:
            ids, vector_ND = read_shard(embeddings, embeddings.shards[k])
            exact.add(ShardOfVectors(ids, vector_ND, first_rows[k]), names)
            done += 1
            if done < len(mine) and time.monotonic() - saved_at > _SECONDS_BETWEEN_SAVES:
                part.write(lists, done)
                saved_at = time.monotonic()
    part.write(lists, len(mine))


def _in_whole(row_QK: np.ndarray, part: Embeddings, first_rows: Sequence[int]) -> np.ndarray:
    """Row numbers of a part of the shards as those of the whole corpus; NONE stays."""
    ends = np.cumsum([shard.rows for shard in part.shards])
    shard_QK = np.minimum(np.searchsorted(ends, row_QK, side="right"), len(ends) - 1)
    shift = np.array(first_rows) - (ends - [shard.rows for shard in part.shards])
    whole: np.ndarray = np.where(row_QK < 0, row_QK, row_QK + shift[shard_QK]).astype(np.int32)
    return whole


def _names_of(embeddings: Embeddings) -> DocumentIds:
    """All ids, from the shards' files of names alone."""
    return DocumentIds(read_ids(embeddings, shard) for shard in embeddings.shards)


def _key(
    embeddings: Embeddings, query_ids: Sequence[str], query_QD: np.ndarray, depth: int, settings: SearchSettings
) -> str:
    vectors = [shard.vectors_sha256 for shard in embeddings.shards]
    queries = hashlib.sha256(np.ascontiguousarray(query_QD).tobytes()).hexdigest()
    return fingerprint_of(
        [embeddings.fingerprint, vectors, list(query_ids), queries, str(query_QD.dtype), depth, settings.of_list()]
    )
