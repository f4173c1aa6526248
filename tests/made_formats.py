"""Formats for the tests of `largede-data pairs`: in a module of their own, which other processes import."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.dropped import Dropped
from data_tools.format import Format, Record, option
from data_tools.sources import lines_of
from largede.streams.pair import Pair


@dataclass(frozen=True)
class MadeOptions:
    prefix: str = option("", "put before every question")
    pause_s: float = option(0.0, "waited after every line, so that a test can strike in between")


def plain_pairs(path: Path, options: MadeOptions, dropped: Dropped) -> Iterator[Pair]:
    """A line "question|passage"; without a bar it is dropped."""
    for line in lines_of(path):
        time.sleep(options.pause_s)
        query, bar, positive = line.decode().strip().partition("|")
        if bar:
            yield Pair(options.prefix + query, positive, source=path.name)
        else:
            dropped.note("no bar", query)


def numbered_lines(path: Path, options: MadeOptions, dropped: Dropped) -> Iterator[Record]:
    """A line "q 7 2 text" or "p 7 2 text": question or passage 7 of topic 2; grouped by number first."""
    for line in lines_of(path):
        time.sleep(options.pause_s)
        kind, number, topic, text = line.decode().strip().split(" ", 3)
        yield number.encode(), json.dumps([kind, number, topic, text]).encode()


def joined_by_number(key: bytes, records: list[bytes], options: MadeOptions, dropped: Dropped) -> Iterator[Record]:
    time.sleep(options.pause_s)
    rows = {kind: (topic, text) for kind, _, topic, text in map(json.loads, records)}
    if len(rows) == 2:
        yield rows["q"][0].encode(), json.dumps([rows["q"][1], rows["p"][1]]).encode()
    else:
        dropped.note("half a pair", key.decode())


def pairs_of_topic(key: bytes, records: list[bytes], options: MadeOptions, dropped: Dropped) -> Iterator[Pair]:
    time.sleep(options.pause_s)
    for query, positive in map(json.loads, records):
        yield Pair(options.prefix + query, positive, group=key.decode())


def dying_reader(path: Path, options: MadeOptions, dropped: Dropped) -> Iterator[Pair]:
    os._exit(9)
    yield Pair("never", "reached")


PLAIN = Format("plain", "A plain made format.", "", MadeOptions, plain_pairs)
CHAIN = Format("chain", "Two groupings.", "", MadeOptions, numbered_lines, (joined_by_number, pairs_of_topic))
DYING = Format("dying", "Kills its process.", "", MadeOptions, dying_reader)
