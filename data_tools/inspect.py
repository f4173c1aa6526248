"""`largede-data inspect`: what lies in a folder of shards, on a page of the terminal and in a picture."""

import shutil
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from data_tools.length_charts import terminal_histogram, write_picture
from data_tools.shard import MADE_FROM
from data_tools.survey import Survey, pairs_of, sampled_blocks, survey
from data_tools.wording import counted
from largede.files import read_json_object
from largede.processors import processors
from largede.streams.index import ShardIndex
from largede.streams.pair import Pair
from largede.streams.places.copy import local_file
from largede.streams.places.place import NotThere, Place, Unreadable
from largede.streams.shuffle import permutation
from largede.text import passage_text

PERCENTS = (1, 10, 50, 90, 99, 100)
_MOST_SOURCES = 20
_MOST_RECORD_BYTES = 1 << 28
_TEXT_CHARACTERS = 400
_BLOCKS_WORTH_PROCESSES = 256


@dataclass(frozen=True)
class InspectSettings:
    """`blocks` are looked at (None: all), of which `samples` pairs are shown. The limits count tokens."""

    samples: int = 5
    blocks: int | None = 64
    seed: int = 0
    tokenizer: str | None = None
    max_query_tokens: int = 64
    max_passage_tokens: int = 512
    picture: Path | None = None
    workers: int | None = None


def inspect(place: Place | Path, settings: InspectSettings) -> Iterator[str]:
    """The lines of the report; writes the picture, if one is asked for. Raises DataError for damaged shards."""
    index = ShardIndex.load(place)
    chosen = sampled_blocks(index, settings.blocks, settings.seed)
    looked_at = sum(map(len, chosen))
    workers = settings.workers or (processors() if looked_at >= _BLOCKS_WORTH_PROCESSES else 1)
    found = survey(index, chosen, settings.tokenizer, workers)
    lengths = found.tokens if settings.tokenizer else found.words
    unit = "tokens" if settings.tokenizer else "words"
    if settings.picture is not None:
        limits = (settings.max_query_tokens, settings.max_passage_tokens) if settings.tokenizer else (None, None)
        write_picture(lengths, unit, limits, _basis(index, found), settings.picture)
    yield from _sizes(index, found)
    yield from _sources(index.place, found)
    yield from _negatives(found)
    yield from _duplicates(index, found)
    yield from _lengths(found, settings)
    for name, some in zip(("queries", "passages"), lengths, strict=True):
        yield from ("", f"{name} by {unit}", *terminal_histogram(some, shutil.get_terminal_size().columns))
    yield from _samples(index, chosen, settings)


def _basis(index: ShardIndex, found: Survey) -> str:
    """What the figures were taken from."""
    if found.pairs == index.samples:
        return f"all {counted(found.pairs, 'pair')}"
    return f"a sample of {found.pairs:,} of {index.samples:,} pairs"


def _sizes(index: ShardIndex, found: Survey) -> Iterator[str]:
    blocks = np.concatenate([shard.blocks for shard in index.shards])
    shards = [shard.bytes for shard in index.shards]
    sizes = (index.samples, "pair"), (len(blocks), "block"), (len(shards), "shard")
    yield f"{index.place}: {', '.join(counted(*size) for size in sizes)}"
    yield f"figures below are of {_basis(index, found)}, {counted(found.blocks, 'block')}, unless they say otherwise"
    yield ""
    yield f"shards       {_range(shards)} bytes, {_range([shard.samples for shard in index.shards])} pairs (of all)"
    yield f"blocks       {_range(blocks[:, 1].tolist())} bytes, {_range(blocks[:, 2].tolist())} pairs (of all)"
    ratio = found.text_bytes / found.stored_bytes
    yield f"text         {found.text_bytes / found.pairs:,.0f} bytes a pair, stored in {1 / ratio:.1%} of that"
    yield f"             so about {index.bytes * ratio / 1e9:,.3g} GB of text in {index.bytes / 1e9:,.3g} GB of shards"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _sources(place: Place, found: Survey) -> Iterator[str]:
    try:
        with local_file(place, MADE_FROM, _MOST_RECORD_BYTES) as recorded:
            sources: Counter[str] = Counter(read_json_object(recorded)["sources"])
        where = "of all pairs"
    except (NotThere, Unreadable):
        sources, where = found.sources, "of those looked at"
    yield ""
    yield f"sources ({len(sources):,}, {where})"
    total, ordered = sources.total(), sources.most_common()
    width = max(len(readable(name) or "(none)") for name, _ in ordered[:_MOST_SOURCES])
    for name, count in ordered[:_MOST_SOURCES]:
        yield f"  {readable(name) or '(none)':{width}}  {count:>13,}  {count / total:6.1%}"
    further = ordered[_MOST_SOURCES:]
    if further:
        yield f"  {len(further):,} further  {sum(count for _, count in further):,}"


def _negatives(found: Survey) -> Iterator[str]:
    yield ""
    share = found.with_negatives / found.pairs
    each = f", {found.negatives / found.with_negatives:.1f} each" if found.with_negatives else ""
    yield f"negatives    {counted(found.with_negatives, 'pair')} with some ({share:.1%}){each}"


def _duplicates(index: ShardIndex, found: Survey) -> Iterator[str]:
    keys = found.keys.duplicates()
    share = keys.copies / keys.pairs
    yield f"duplicates   {keys.copies:,} of {keys.pairs:,} pairs repeat the texts of another one ({share:.2%})"
    yield f"             {keys.queries_with_more:,} of {keys.queries:,} queries have several positives"
    yield f"             {keys.positives_with_more:,} of {keys.positives:,} positives have several queries"
    if found.keys.every > 1:
        yield f"             counted on one query in {found.keys.every:,}; too low for positives"
    if found.pairs < index.samples:
        yield "             within the sample; in all pairs the shares are higher (--all counts them)"


def _lengths(found: Survey, settings: InspectSettings) -> Iterator[str]:
    yield ""
    heads = [f"p{percent}" if percent < 100 else "most" for percent in PERCENTS]
    yield "lengths          " + "".join(f"{head:>8}" for head in [*heads, "mean"])
    rows = [("words", found.words)] + ([("tokens", found.tokens)] if settings.tokenizer else [])
    for unit, pair in rows:
        for name, some in zip(("query", "passage"), pair, strict=True):
            figures = "".join(f"{some.percentile(percent):>8,}" for percent in PERCENTS)
            yield f"  {name + ' ' + unit:<15}{figures}{some.mean:>8,.1f}"
    if settings.tokenizer:
        limits = (settings.max_query_tokens, settings.max_passage_tokens)
        yield "cut          " + ", ".join(
            f"{some.above(limit) / some.total:.1%} of {name} at {limit:,} tokens"
            for name, some, limit in zip(("queries", "passages"), found.tokens, limits, strict=True)
        )


def _samples(index: ShardIndex, chosen: Sequence[np.ndarray], settings: InspectSettings) -> Iterator[str]:
    """Pairs by chance, each from another block as long as there are enough."""
    places = [(shard, int(block)) for shard, blocks in enumerate(chosen) for block in blocks]
    order = permutation(len(places), "inspect samples", settings.seed)
    for number in range(min(settings.samples, index.samples)):
        shard, block = places[int(order[number % len(places)])]
        pairs = pairs_of(index, shard, block)
        row = int(permutation(len(pairs), "inspect rows", settings.seed, block)[number // len(places) % len(pairs)])
        yield ""
        yield f"{index.shards[shard].name} block {block} row {row}"
        yield from described(pairs[row], shutil.get_terminal_size().columns)


def described(pair: Pair, columns: int) -> Iterator[str]:
    """A pair for reading: long texts are cut, whatever would move the cursor is spelt out."""
    negatives = [passage_text(title, text) for title, text in zip(_titles(pair), pair.negatives, strict=True)]
    fields = [
        ("source", pair.source),
        ("group", pair.group),
        ("ids", " / ".join(filter(None, (pair.query_id, pair.positive_id)))),
        ("score", "" if pair.score is None else f"{pair.score:g}"),
        ("query", pair.query),
        ("title", pair.title),
        ("positive", pair.positive),
        *((f"negative {n}", text) for n, text in enumerate(islice(negatives, 2), start=1)),
        ("", f"({len(negatives) - 2:,} further negatives)" if len(negatives) > 2 else ""),
        ("also right", ", ".join(pair.other_positives)),
    ]
    for name, text in fields:
        if text:
            yield from _wrapped(name, readable(text), columns)


def _titles(pair: Pair) -> tuple[str, ...]:
    return pair.negative_titles or ("",) * len(pair.negatives)


def _wrapped(name: str, text: str, columns: int) -> list[str]:
    shown = text if len(text) <= _TEXT_CHARACTERS else f"{text[:_TEXT_CHARACTERS]}… ({len(text):,} characters)"
    indent = " " * 14
    return textwrap.wrap(
        shown, max(40, columns - 1), initial_indent=f"  {name:<12}", subsequent_indent=indent, break_on_hyphens=False
    )


def readable(text: str) -> str:
    """The text on one line, with everything that a terminal might obey written as an escape."""
    spaced = text.replace("\n", " ⏎ ").replace("\t", " ")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in spaced)
