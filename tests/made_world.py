"""A small made world: pairs that can be learned, a vocabulary, shards. The fixture `world` makes it once a session."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

PAIRS = 240


@dataclass(frozen=True)
class MadeWorld:
    pairs: Path
    vocabulary: Path
    shards: Path


def made_words(generator: random.Random, count: int) -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    return ["".join(generator.choices(syllables, k=generator.randint(1, 3))) for _ in range(count)]


def make_world(folder: Path) -> MadeWorld:
    from data_tools.shard import shard
    from data_tools.shard_settings import ShardSettings
    from data_tools.vocabulary import write_vocabulary

    generator = random.Random(0)
    words = made_words(generator, 400)
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for i in range(PAIRS):
            topic = generator.sample(words, 4)
            passage = " ".join(topic + generator.choices(words, k=generator.randint(3, 12)))
            query = " ".join(generator.sample(topic, 2))
            negatives = [" ".join(generator.choices(words, k=8)) for _ in range(i % 3)]
            row = {"query": query, "positive": passage, "negatives": negatives, "query_id": f"q{i}"}
            file.write(json.dumps(row) + "\n")
    write_vocabulary([folder / "pairs.jsonl"], folder / "vocabulary", 300)
    shard([folder / "pairs.jsonl"], folder / "shards", ShardSettings(shard_pairs=40, block_pairs=10, seed=1))
    return MadeWorld(folder / "pairs.jsonl", folder / "vocabulary", folder / "shards")
