"""Small collections in BEIR format, and where the shared real ones are."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

TOPICS = ("engine", "harbour", "violin", "glacier", "orchard", "telescope", "bakery", "falcon")


def shared_data(*parts: str) -> Path:
    """A path in the shared data folder; the test is skipped, saying so, where it is missing."""
    beside = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("LARGEDE_SHARED_DATA", beside)).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs the shared data {'/'.join(parts)} (set LARGEDE_SHARED_DATA)")
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_qrels(folder: Path, split: str, judgements: Sequence[tuple[str, str, int]]) -> None:
    path = folder / "qrels" / f"{split}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{query}\t{document}\t{grade}\n" for query, document, grade in judgements]
    path.write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")


def write_collection(folder: Path, documents: int = 160, queries: int = 24, splits: Sequence[str] = ("test",)) -> Path:
    """Documents of a few topic words and much noise; each query is relevant to three documents of its topic.

    Every other eight queries spell their topic in a way that BM25 does not know and `HashEncoder` does.
    """
    rng = np.random.default_rng(7)
    noise = [f"{i:02d}word" for i in range(60)]

    def words(topic: str, topical: int, others: int) -> str:
        return " ".join([topic] * topical + list(rng.choice(noise, others)))

    topics = [TOPICS[i % len(TOPICS)] for i in range(documents)]
    rows = [
        {"_id": f"d{i:03d}", "title": f"about <b>{topic}</b> {i}", "text": words(topic, int(rng.integers(0, 3)), 8)}
        for i, topic in enumerate(topics)
    ]
    write_jsonl(folder / "corpus.jsonl", rows)
    asked = [(f"q{i}", TOPICS[i % len(TOPICS)]) for i in range(queries)]
    spelt = [topic[:5] + "xx" if i // len(TOPICS) % 2 else topic for i, (_, topic) in enumerate(asked)]
    texts = [{"_id": id_, "text": words(word, 1, 3)} for (id_, _), word in zip(asked, spelt, strict=True)]
    write_jsonl(folder / "queries.jsonl", texts)
    for place, split in enumerate(splits):
        mine = asked[place :: len(splits)]
        candidates = {topic: [f"d{i:03d}" for i, t in enumerate(topics) if t == topic] for topic in TOPICS}
        write_qrels(
            folder, split, [(id_, d, 1) for id_, topic in mine for d in rng.choice(candidates[topic], 3, replace=False)]
        )
    return folder
