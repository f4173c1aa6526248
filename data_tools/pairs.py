"""Pairs out of JSON-lines files, plain or compressed, read as a stream and checked line by line."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from data_tools.sources import lines_of
from data_tools.wording import counted
from largede.errors import DataError
from largede.streams.pair import Pair


class PairReader:
    """Iterates over the pairs of `paths` in order. `skipped` counts the bad lines passed over, at most `skip_bad`.

    Raises DataError, naming file and line: for a missing, truncated or damaged file at once, for a line that is no pair
    when more than `skip_bad` of them were met; and at its end for a file that has not as many lines as `counts` says.
    Blank lines are no lines.
    """

    def __init__(self, paths: Sequence[Path], skip_bad: int = 0, counts: Sequence[int | None] = ()) -> None:
        self._paths = paths
        self._counts = counts or [None] * len(paths)
        self._skip_bad = skip_bad
        self.skipped = 0

    def __iter__(self) -> Iterator[Pair]:
        for path, count in zip(self._paths, self._counts, strict=True):
            for _, pair in numbered_pairs(path, self._pass_over, count):
                yield pair

    def _pass_over(self, error: DataError, where: str) -> None:
        if self.skipped == self._skip_bad:
            raise error
        self.skipped += 1


def numbered_lines(path: Path, count: int | None = None) -> Iterator[tuple[int, bytes]]:
    """(number, line) of the lines that are not blank, whether they hold a pair or not.

    Raises DataError for a missing, truncated or damaged file, and at its end when there were not `count` of them.
    """
    found = 0
    for number, line in enumerate(lines_of(path), start=1):
        if not line.isspace():
            found += 1
            yield number, line
    if count is not None and found != count:
        raise DataError(
            f"{path} holds {counted(found, 'pair')}, not the {count:,} that were written",
            expected="the parts of a folder as its manifest describes them",
            mend="bring the folder back as it was or make it again",
        )


def numbered_pairs(
    path: Path, note_bad: Callable[[DataError, str], None], count: int | None = None
) -> Iterator[tuple[int, Pair]]:
    """(number of its line, pair) of one file. `note_bad(error, where)` hears of a line that is no pair, and may raise.

    Raises DataError as `numbered_lines` does.
    """
    for number, line in numbered_lines(path, count):
        where = f"{path} line {number}"
        try:
            pair = parse_pair(line, where)
        except DataError as error:
            note_bad(error, where)
        else:
            yield number, pair


def line_of(pair: Pair) -> bytes:
    """The pair as one JSON line without its end; `parse_pair` is the inverse."""
    return json.dumps(pair.to_dict(), ensure_ascii=False, separators=(",", ":")).encode()


def parse_pair(line: bytes, where: str) -> Pair:
    """The pair on one line. Raises DataError that starts with `where`."""
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not UTF-8: {error.reason} at byte {error.start}",
            expected="text encoded as UTF-8",
            mend="convert the file (iconv -t utf-8), or pass over such lines with --skip-bad",
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} is not JSON: {error}",
            expected='one JSON object per line, such as {"query": "...", "positive": "..."}',
            mend="correct or remove that line, or pass over bad lines with --skip-bad",
        ) from None
    return Pair.from_dict(record, where)
