"""Parquet files with columns of any names, read batch of rows by batch of rows.

Only the columns that are asked for are read. Memory holds one batch and what Parquet needs to decode it, a page of each
of these columns.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path

from data_tools.dropped import Dropped
from data_tools.format import Format
from data_tools.readers.fields import FieldOptions, pairs_of_record
from data_tools.readers.labelled import Unusable, source_of
from largede.errors import DataError
from largede.streams.pair import Pair

BATCH_ROWS = 256


def read(path: Path, options: FieldOptions, dropped: Dropped) -> Iterator[Pair]:
    # Slow to import, and needed for this format alone.
    import pyarrow as arrow
    import pyarrow.parquet

    source = source_of(path)
    try:
        with arrow.parquet.ParquetFile(path, pre_buffer=False, memory_map=False) as file:
            columns = _wanted(path, file.schema_arrow.names, options)
            number = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    where = f"{path} row {number}"
                    try:
                        yield from pairs_of_record(row, options, source, where, dropped)
                    except Unusable as reason:
                        dropped.note(str(reason), where)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", expected="a Parquet file", mend="correct the path") from None
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as Parquet: {error}", expected="a whole Parquet file", mend="fetch the file again"
        ) from None


def _wanted(path: Path, there: list[str], options: FieldOptions) -> list[str]:
    for name, flag in ((options.query_field, "--query-field"), (options.positive_field, "--positive-field")):
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            raise DataError(
                f"{path} has no column {name!r}",
                expected=f"one of its columns: {', '.join(there)}",
                mend=f"name it with {flag}" + (f", perhaps {near[0]}" if near else ""),
            )
    return [name for name in dict.fromkeys(options.names) if name in there]


FORMAT = Format(
    "parquet",
    "Parquet files with columns of any names.",
    "largede-data pairs parquet train-*.parquet --query-field anchor --out gooaq",
    FieldOptions,
    read,
    inputs="a Parquet file",
)
