"""Forms a block of pairs could have, compared by size and by how fast they are written and read.

    python tests/streams/member_formats.py ../shared/data/pairs/{stackexchange,medquad}.jsonl.gz
    python tests/streams/member_formats.py --block-pairs 64 256 1024 4096 -- PAIRS...

Every form takes pairs and gives pairs back, in one process. `largede/streams/README.md` has a run of it.
"""

import argparse
import gzip
import io
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.ipc
import zstandard

from data_tools.pairs import PairReader
from largede.streams.block import decode_block, encode_block
from largede.streams.pair import Pair

LEVELS = (1, 3, 9, 19)
_LISTS = ("negatives", "negative_titles", "negative_ids", "other_positives")

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Form:
    """One way to write a block. `read` is told how many pairs it holds."""

    name: str
    write: Callable[[Sequence[Pair]], bytes]
    read: Callable[[bytes, int], list[Pair]]


@dataclass(frozen=True)
class Row:
    """Measured: stored bytes as a share of the pairs as JSON lines, and pairs in a second of one processor."""

    name: str
    share: float
    written_per_s: float
    read_per_s: float


def columns_of(pairs: Sequence[Pair]) -> Columns:
    """Values by field; a field that no pair has is left out."""
    columns = zip(Pair._fields, zip(*pairs, strict=True), strict=True)
    return {
        name: list(values)
        for name, values in columns
        if name not in Pair._field_defaults or any(value != Pair._field_defaults[name] for value in values)
    }


def from_columns(columns: Columns, count: int) -> list[Pair]:
    filled = [columns.get(name) or [Pair._field_defaults[name]] * count for name in Pair._fields]
    for place, name in enumerate(Pair._fields):
        if name in _LISTS and name in columns:
            filled[place] = list(map(tuple, columns[name]))
    return list(map(Pair._make, zip(*filled, strict=True)))


def json_lines(pairs: Sequence[Pair]) -> bytes:
    dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    return "".join(dumps(pair.to_dict()) + "\n" for pair in pairs).encode()


def from_json_lines(data: bytes, count: int) -> list[Pair]:
    return [Pair.from_dict(json.loads(line), "line") for line in data.split(b"\n")[:count]]


def json_columns(pairs: Sequence[Pair]) -> bytes:
    return json.dumps(columns_of(pairs), ensure_ascii=False, separators=(",", ":")).encode()


def from_json_columns(data: bytes, count: int) -> list[Pair]:
    return from_columns(json.loads(data), count)


def messagepack_rows(pairs: Sequence[Pair]) -> bytes:
    return bytes(msgpack.packb(pairs))


def from_messagepack_rows(data: bytes, count: int) -> list[Pair]:
    return list(map(Pair._make, msgpack.unpackb(data, use_list=False)))


def messagepack_columns(pairs: Sequence[Pair]) -> bytes:
    return bytes(msgpack.packb(columns_of(pairs)))


def from_messagepack_columns(data: bytes, count: int) -> list[Pair]:
    return from_columns(msgpack.unpackb(data, use_list=False), count)


def arrow_stream(pairs: Sequence[Pair], compression: str | None = None) -> bytes:
    table = pa.table({name: pa.array(values) for name, values in columns_of(pairs).items()})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def from_arrow_stream(data: bytes, count: int) -> list[Pair]:
    table = pa.ipc.open_stream(pa.py_buffer(data)).read_all()
    return from_columns({name: table.column(name).to_pylist() for name in table.column_names}, count)


def zstd(level: int, form: Form) -> Form:
    """`form` within a zstandard frame."""
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
    decompressor = zstandard.ZstdDecompressor()
    return Form(
        f"{form.name}, zstd {level}",
        lambda pairs: compressor.compress(form.write(pairs)),
        lambda data, count: form.read(decompressor.decompress(data), count),
    )


def gzipped(form: Form) -> Form:
    return Form(
        f"{form.name}, gzip 6",
        lambda pairs: gzip.compress(form.write(pairs), 6),
        lambda data, count: form.read(gzip.decompress(data), count),
    )


def forms() -> Iterator[Form]:
    lines = Form("JSON lines", json_lines, from_json_lines)
    plain = [
        lines,
        Form("JSON columns", json_columns, from_json_columns),
        Form("MessagePack rows", messagepack_rows, from_messagepack_rows),
        Form("MessagePack columns", messagepack_columns, from_messagepack_columns),
        Form("Arrow IPC", arrow_stream, from_arrow_stream),
    ]
    yield from (zstd(level, form) for form in plain for level in LEVELS)
    yield Form("Arrow IPC, its own zstd", lambda pairs: arrow_stream(pairs, "zstd"), from_arrow_stream)
    yield gzipped(lines)
    yield kept_form()


def kept_form() -> Form:
    return Form("largede's block", encode_block, decode_block)


def measure(forms: Sequence[Form], pairs: Sequence[Pair], block_pairs: int, repeats: int) -> list[Row]:
    """By processor time, the best of `repeats` rounds over all forms: whatever else runs can only slow them down."""
    blocks = [pairs[start : start + block_pairs] for start in range(0, len(pairs), block_pairs)]
    text_bytes = len(json_lines(pairs))
    written_s = dict.fromkeys((form.name for form in forms), math.inf)
    read_s, sizes = dict(written_s), dict.fromkeys(written_s, 0)
    for _ in range(repeats):
        for form in forms:
            started = time.process_time()
            members = [form.write(block) for block in blocks]
            between = time.process_time()
            for data, block in zip(members, blocks, strict=True):
                form.read(data, len(block))
            written_s[form.name] = min(written_s[form.name], between - started)
            read_s[form.name] = min(read_s[form.name], time.process_time() - between)
            sizes[form.name] = sum(map(len, members))
    return [
        Row(name, size / text_bytes, len(pairs) / written_s[name], len(pairs) / read_s[name])
        for name, size in sizes.items()
    ]


def print_table(rows: Sequence[Row], head: str) -> None:
    print(f"| {head} | size | written, pairs/s | read, pairs/s |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.share:.1%} | {row.written_per_s:,.0f} | {row.read_per_s:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare forms of a block.")
    parser.add_argument("inputs", nargs="+", type=Path, metavar="PAIRS", help="JSON lines, plain, .gz or .zst")
    parser.add_argument("--pairs", type=int, default=20_000, help="pairs to take, shuffled (%(default)s)")
    parser.add_argument("--block-pairs", type=int, nargs="+", default=[256], help="several sizes are compared (256)")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many rounds counts (%(default)s)")
    args = parser.parse_args()
    pairs = list(PairReader(args.inputs))
    random.Random(0).shuffle(pairs)
    pairs = pairs[: args.pairs]
    print(f"{len(pairs):,} pairs of {len(json_lines(pairs)) / len(pairs):,.0f} bytes as JSON lines\n")
    if len(args.block_pairs) == 1:
        rows = measure(list(forms()), pairs, args.block_pairs[0], args.repeats)
        print_table(rows, f"blocks of {args.block_pairs[0]:,} pairs")
    else:
        sizes = [
            replace(row, name=f"{size:,}")
            for size in args.block_pairs
            for row in measure([kept_form()], pairs, size, args.repeats)
        ]
        print_table(sizes, "pairs in a block")


if __name__ == "__main__":
    main()
