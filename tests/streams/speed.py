"""Pairs a second that one process reads, tokenises and packs: largede, plain webdataset, Hugging Face `datasets`.

    PYTHONPATH=tests/streams .venv/bin/python -m speed PAIRS... --tokenizer FOLDER

All hand over the same pairs, in one run, stage upon stage:

- read: the bytes of all pairs out of the files, checked and decompressed, in order and not decoded. webdataset reads
  one pair per member (JSON), as its users write them; `datasets` does not offer this stage.
- pairs: decoded, as texts, in shuffled order: ours by its global order, the others' through a shuffle buffer;
  `datasets` streams JSON lines (zstd) and Parquet.
- tokens: the same, in batches, as token ids: largede's as its recipes do by default, the others' by transformers.
- padded, packed: the same, laid out in chunks of a token budget by largede's code.

The rounds go through all of them in turn, so that a noisy neighbour meets all alike; a rate is that of the best round,
beside it the spread. Everything runs in one process, which keeps to one processor: as a loader's worker does on a node
whose processors all have one, and because pyarrow decodes Parquet on as many threads as it finds processors. With
--free it may take them all.
"""

import argparse
import io
import json
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

BATCH = 256
"""Pairs of one batch: a rank's rows when a batch of 2,048 is spread over 8."""
CHUNK_TOKENS = 16384
SHUFFLE = 1000
"""Samples in the shuffle buffers of the others: webdataset's and datasets' documentation use this size."""
MEMBERS_PER_TAR = 10_000
ROW_GROUP = 1000
MORE = 20 * ROW_GROUP
OURS = "largede"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", type=Path)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--count", type=int, default=40_000, help="pairs read for the first stage (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--free", action="store_true", help="do not keep to one processor")
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_DATASETS_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        sources = prepare(args.pairs, Path(folder), args.count)
        if not args.free:
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        measure_reading(Path(folder), args.count + MORE, args.rounds)
        measure(sources, args.tokenizer, args.count, args.rounds)


def prepare(inputs: list[Path], folder: Path, count: int) -> dict[str, Callable[[], Iterator[dict[str, str]]]]:
    """The same pairs written in every form; each name opens a stream of its batches."""
    from data_tools.pairs import PairReader
    from data_tools.shard import ShardSettings, shard

    # More than is read in any round: at the end of its data `datasets` waits five seconds for its threads.
    pairs = [{"query": pair.query, "positive": pair.positive} for pair in islice(PairReader(inputs), count + MORE)]
    if len(pairs) < count + MORE:
        raise SystemExit(f"{len(pairs):,} pairs; --count {count:,} needs {count + MORE:,}")
    plain = folder / "pairs.jsonl"
    plain.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
    shard([plain], folder / "shards", ShardSettings(shard_pairs=8192))
    print(f"{len(pairs):,} pairs, {plain.stat().st_size / len(pairs):,.0f} bytes of JSON each")
    for name, size in {
        OURS: tree_size(folder / "shards"),
        "webdataset": write_members(pairs, folder / "members"),
        "datasets, JSON lines": write_json_lines(pairs, folder / "pairs.jsonl.zst"),
        "datasets, Parquet": write_parquet(pairs, folder / "pairs.parquet"),
    }.items():
        print(f"  {name:22} {size / len(pairs):7,.0f} bytes a pair on disk")
    return {
        OURS: lambda: largede_pairs(folder / "shards"),
        "largede, transformers": lambda: largede_pairs(folder / "shards"),
        "webdataset": lambda: webdataset_pairs(folder / "members"),
        "datasets, JSON lines": lambda: datasets_pairs("json", folder / "pairs.jsonl.zst"),
        "datasets, Parquet": lambda: datasets_pairs("parquet", folder / "pairs.parquet"),
    }


def tree_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def write_members(pairs: list[dict[str, str]], folder: Path) -> int:
    """Tars with one JSON member for each pair."""
    folder.mkdir()
    for first in range(0, len(pairs), MEMBERS_PER_TAR):
        with tarfile.open(folder / f"members-{first // MEMBERS_PER_TAR:03d}.tar", "w") as tar:
            for number, pair in enumerate(pairs[first : first + MEMBERS_PER_TAR], start=first):
                data = json.dumps(pair, ensure_ascii=False).encode()
                member = tarfile.TarInfo(f"{number:08d}.json")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return tree_size(folder)


def write_json_lines(pairs: list[dict[str, str]], path: Path) -> int:
    import zstandard

    data = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs).encode()
    path.write_bytes(zstandard.compress(data, level=3))
    return path.stat().st_size


def write_parquet(pairs: list[dict[str, str]], path: Path) -> int:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(pairs), path, compression="zstd", row_group_size=ROW_GROUP)
    return path.stat().st_size


def largede_pairs(folder: Path) -> Iterator[list[Any]]:
    from largede.streams.batches import PairBatches

    return iter(
        PairBatches(folder, batch_size=BATCH, lanes=4, seed=0, rank=0, world_size=1, transform=lambda pairs, _: pairs)
    )


def webdataset_pairs(folder: Path) -> Iterator[list[Any]]:
    import webdataset

    urls = sorted(map(str, folder.glob("*.tar")))
    samples = webdataset.WebDataset(urls, shardshuffle=False).repeat().shuffle(SHUFFLE).decode()
    return batched(sample["json"] for sample in samples)


def datasets_pairs(kind: str, path: Path) -> Iterator[list[Any]]:
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.load_dataset(kind, data_files=str(path), streaming=True, split="train")
    return batched(iter(rows.shuffle(seed=0, buffer_size=SHUFFLE)))


def batched(rows: Iterator[Any]) -> Iterator[list[Any]]:
    from largede.streams.pair import Pair

    while batch := list(islice(rows, BATCH)):
        yield [Pair(row["query"], row["positive"]) for row in batch]


def measure_reading(folder: Path, count: int, rounds: int) -> None:
    """Print the rates of the stage that decodes nothing."""
    readers = {OURS: largede_bytes, "webdataset": webdataset_bytes}
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, read in readers.items():
            started = time.perf_counter()
            read(folder)
            rates[name].append(count / (time.perf_counter() - started))
    report("read", rates)


def largede_bytes(folder: Path) -> None:
    from largede.streams.block import checksum, decompressed
    from largede.streams.index import ShardIndex

    index = ShardIndex.load(folder / "shards")
    for shard in index.shards:
        for offset, size, _, crc in shard.blocks.tolist():
            data = index.place.read(shard.name, offset, size)
            assert checksum(data) == crc
            decompressed(data)


def webdataset_bytes(folder: Path) -> None:
    import webdataset

    for _ in webdataset.WebDataset(sorted(map(str, (folder / "members").glob("*.tar"))), shardshuffle=False):
        pass


def measure(sources: dict[str, Callable[[], Iterator[Any]]], tokenizer: str, count: int, rounds: int) -> None:
    """Print a table: rows are the readers, columns the stages."""
    fast, plain = stages_of(tokenizer, "auto"), stages_of(tokenizer, "transformers")
    for stage, share in {"pairs": 1.0, "tokens": 0.25, "padded": 0.25, "packed": 0.25}.items():
        rates: dict[str, list[float]] = {name: [] for name in sources}
        for _ in range(rounds):
            for name, open_source in sources.items():
                transform = (fast if name == OURS else plain)[stage]
                rates[name].append(rate(open_source(), transform, int(count * share)))
        report(stage, rates)


def report(stage: str, rates: dict[str, list[float]]) -> None:
    print(
        f"\n{stage}: pairs a second, best of {len(rates[OURS])} rounds (spread), and how often that goes into largede's"
    )
    for name, found in rates.items():
        ratios = [a / b for a, b in zip(rates[OURS], found, strict=True)]
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"  {name:22} {max(found):9,.0f}  ({spread})  x {statistics.median(ratios):.1f}")


def stages_of(tokenizer: str, backend: Literal["auto", "transformers"]) -> dict[str, Callable[[list[Any]], object]]:
    """What is done with a batch in each stage."""
    from largede.config.recipe import DataConfig
    from largede.streams.chunks import make_chunks, make_packed_chunks
    from largede.streams.tokenise import PairTokeniser

    data = DataConfig(max_query_tokens=64, max_passage_tokens=256, tokenizer_backend=backend)
    tokenise = PairTokeniser(tokenizer, data)

    def padded(pairs: list[Any]) -> object:
        batch = tokenise(pairs, 0)
        return make_chunks(batch.queries, CHUNK_TOKENS), make_chunks(batch.passages, CHUNK_TOKENS)

    def packed(pairs: list[Any]) -> object:
        batch = tokenise(pairs, 0)
        return make_packed_chunks(batch.queries, CHUNK_TOKENS), make_packed_chunks(batch.passages, CHUNK_TOKENS)

    return {"pairs": len, "tokens": lambda pairs: tokenise(pairs, 0), "padded": padded, "packed": packed}


def rate(batches: Iterator[list[Any]], transform: Callable[[list[Any]], object], count: int) -> float:
    """Pairs a second over `count` pairs, the first batch (opening files, filling buffers) not counted."""
    transform(next(batches))
    done = 0
    started = time.perf_counter()
    while done < count - 2 * BATCH:
        batch = next(batches)
        transform(batch)
        done += len(batch)
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
