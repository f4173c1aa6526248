"""Names of documents by row number in little memory: 8 to 16 bytes for each beside its letters."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class DocumentIds(Sequence[str]):
    """Names in the order they were appended, kept as bytes, a block for each `append`."""

    def __init__(self, blocks: Iterable[Sequence[str]] = ()) -> None:
        self._firsts = [0]
        self._letters: list[bytes | np.ndarray] = []
        self._ends: list[np.ndarray] = []
        for ids in blocks:
            self.append(ids)

    @classmethod
    def of_arrays(cls, letters: np.ndarray, ends: np.ndarray) -> "DocumentIds":
        """Name i is letters[ends[i]:ends[i + 1]], of uint8; memory maps will do."""
        made = cls()
        made._letters, made._ends, made._firsts = [letters], [ends], [0, len(ends) - 1]
        return made

    def as_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """What `of_arrays` takes."""
        letters = [np.frombuffer(block, dtype=np.uint8) for block in self._letters]
        lengths = [np.diff(ends) for ends in self._ends]
        ends = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
        return np.concatenate(letters) if letters else np.empty(0, dtype=np.uint8), ends

    def append(self, ids: Sequence[str]) -> None:
        encoded = [id_.encode() for id_ in ids]
        self._letters.append(b"".join(encoded))
        self._ends.append(np.cumsum([0, *map(len, encoded)]))
        self._firsts.append(self._firsts[-1] + len(ids))

    def rows_of(self, wanted: Collection[str]) -> dict[str, int]:
        """The row of each of `wanted` that is here."""
        wanted = wanted if isinstance(wanted, (set, frozenset, dict)) else frozenset(wanted)
        return {id_: row for row, id_ in enumerate(self) if id_ in wanted} if wanted else {}

    def __len__(self) -> int:
        return self._firsts[-1]

    def __iter__(self) -> Iterator[str]:
        for block in range(len(self._ends)):
            yield from self._names(block, 0, len(self._ends[block]) - 1)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[str, ...]: ...
    def __getitem__(self, row: int | slice) -> str | tuple[str, ...]:
        if isinstance(row, slice):
            first, last, step = row.indices(len(self))
            return tuple(self._between(first, last) if step == 1 else (self[one] for one in range(first, last, step)))
        if not 0 <= row < len(self):
            raise IndexError(row)
        block = bisect_right(self._firsts, row) - 1
        first, last = self._ends[block][row - self._firsts[block] : row - self._firsts[block] + 2].tolist()
        return bytes(self._letters[block][first:last]).decode()

    def _between(self, first: int, last: int) -> Iterator[str]:
        for block in range(max(0, bisect_right(self._firsts, first) - 1), len(self._ends)):
            begin = self._firsts[block]
            if begin >= last:
                return
            yield from self._names(block, max(first - begin, 0), min(last, self._firsts[block + 1]) - begin)

    def _names(self, block: int, first: int, last: int) -> Iterator[str]:
        """Names first to last (exclusive) of a block, a few thousand made at a time."""
        for start in range(first, last, 4096):
            edges = self._ends[block][start : min(start + 4096, last) + 1].tolist()
            letters = bytes(self._letters[block][edges[0] : edges[-1]])
            yield from (
                letters[a - edges[0] : b - edges[0]].decode() for a, b in zip(edges[:-1], edges[1:], strict=True)
            )
