"""Rate and memory of every reader: python tests/data_tools/readers/rates.py FOLDER [FORMAT ...]

Writes made inputs into FOLDER (600 MB at most at a time; passages of 56 words, as MS MARCO's, and made dumps), turns
them into pairs with `largede-data pairs FORMAT ... --workers 1`, twice, each time in a process of its own, and prints
what each pairs.json says of a second of processor time, which neighbours on the machine disturb less. Counted is
everything: reading, grouping, writing parts.
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from made_dumps import write_reddit, write_stackexchange

WORDS = [f"{chr(97 + i % 26)}{'aeiou'[i % 5]}{i}" for i in range(3000)]
_random = random.Random(0)


def text(words: int = 56) -> str:
    return " ".join(_random.choices(WORDS, k=words))


PASSAGES = [text() for _ in range(20_000)]


def some(count: int) -> list[str]:
    first = _random.randrange(len(PASSAGES) - count)
    return PASSAGES[first : first + count]


def lines(path: Path, rows: Iterable[Any]) -> Path:
    with path.open("w") as file:
        file.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return path


def msmarco(folder: Path) -> Iterator[Path]:
    """100,000 passages, 20,000 queries with one positive and ten negatives drawn from fifty."""
    queries = range(20_000)
    wrong = ({"qid": q, "pos": [q], "neg": {"bm25": _random.sample(range(100_000), 50)}} for q in queries)
    yield lines(folder / "collection.tsv", (f"{i}\t{text()}" for i in range(100_000)))
    yield lines(folder / "queries.tsv", (f"{q}\t{text(6)}" for q in queries))
    yield lines(folder / "qrels.tsv", (f"{q}\t0\t{q}\t1" for q in queries))
    yield lines(folder / "hard-negatives.jsonl", wrong)


def tevatron(folder: Path) -> Iterator[Path]:
    """One positive and thirty negatives for each query."""

    def passages(count: int) -> list[dict[str, str]]:
        return [{"docid": p[:20], "title": p[:15], "text": p} for p in some(count)]

    rows = (
        {"query_id": str(q), "query": text(6), "positive_passages": passages(1), "negative_passages": passages(30)}
        for q in range(8_000)
    )
    yield lines(folder / "a.jsonl", rows)


def tevatron_ids(folder: Path) -> Iterator[Path]:
    """100,000 passages, 20,000 queries with one positive and ten negatives."""
    wrong = (list(map(str, _random.sample(range(100_000), 10))) for _ in range(20_000))
    rows = (
        {"query_id": str(q), "query_text": text(6), "positive_document_ids": [str(q)], "negative_document_ids": ids}
        for q, ids in enumerate(wrong)
    )
    yield lines(folder / "train.jsonl", rows)
    yield lines(folder / "corpus.jsonl", ({"docid": str(i), "text": text()} for i in range(100_000)))


def sentence_transformers(folder: Path) -> Iterator[Path]:
    """Pairs."""
    yield lines(folder / "a.jsonl", ([text(6), p] for _ in range(5) for p in PASSAGES))


def rocketqa(folder: Path) -> Iterator[Path]:
    """Four lines of the dual encoder's layout for each query."""
    queries = (text(6) for _ in range(20_000))
    rows = (f"{q}\t-\t{p}\t-\t{n}\t0" for q in queries for p in some(1) for n in some(4))
    yield lines(folder / "a.tsv", rows)


def dpr(folder: Path) -> Iterator[Path]:
    """One array; one positive and thirty hard negatives for each question."""

    def passages(count: int) -> list[dict[str, Any]]:
        return [{"title": p[:15], "text": p, "score": 1.0, "passage_id": p[:20]} for p in some(count)]

    items = [
        {"question": text(6), "answers": ["a"], "positive_ctxs": passages(1), "hard_negative_ctxs": passages(30)}
        for _ in range(8_000)
    ]
    yield lines(folder / "a.json", [json.dumps(items, indent=4)])


def squad(folder: Path) -> Iterator[Path]:
    """500 articles of 40 paragraphs of five questions."""

    def paragraph() -> dict[str, Any]:
        questions = [{"id": "1", "question": text(10), "answers": []} for _ in range(5)]
        return {"context": text(120), "qas": questions}

    articles = [{"title": text(2), "paragraphs": [paragraph() for _ in range(40)]} for _ in range(500)]
    yield lines(folder / "a.json", [{"version": "2.0", "data": articles}])


def beir(folder: Path) -> Iterator[Path]:
    """100,000 documents, 50,000 queries with one positive."""
    (folder / "made" / "qrels").mkdir(parents=True)
    documents = ({"_id": str(i), "title": text(3), "text": text()} for i in range(100_000))
    lines(folder / "made" / "corpus.jsonl", documents)
    lines(folder / "made" / "queries.jsonl", ({"_id": str(q), "text": text(6)} for q in range(50_000)))
    lines(folder / "made" / "qrels" / "train.tsv", (f"{q}\t{q}\t1" for q in range(50_000)))
    yield folder / "made"


def jsonl(folder: Path) -> Iterator[Path]:
    """Pairs with a title."""
    rows = ({"query": text(6), "positive": p, "title": p[:15]} for _ in range(5) for p in PASSAGES)
    yield lines(folder / "a.jsonl", rows)


def parquet(folder: Path) -> Iterator[Path]:
    """Pairs with a title."""
    rows = [{"query": text(6), "positive": p, "title": p[:15]} for _ in range(5) for p in PASSAGES]
    arrow.parquet.write_table(arrow.Table.from_pylist(rows), folder / "a.parquet")
    yield folder / "a.parquet"


def stackexchange(folder: Path) -> Iterator[Path]:
    """Dump of one site, .7z; questions with two answers, of real posts' length."""
    write_stackexchange(folder, 60_000_000)
    yield folder / "made.7z"


def reddit(folder: Path) -> Iterator[Path]:
    """Dumps RS and RC, .zst; posts with three comments, a quotation in each."""
    write_reddit(folder, 60_000_000)
    yield folder / "RS.zst"
    yield folder / "RC.zst"


MAKERS: tuple[Callable[[Path], Iterator[Path]], ...] = (
    stackexchange,
    reddit,
    msmarco,
    tevatron,
    tevatron_ids,
    sentence_transformers,
    rocketqa,
    dpr,
    squad,
    beir,
    jsonl,
    parquet,
)


_MEASURED = """
import sys
from pathlib import Path
from data_tools.cli import main
assert main(sys.argv[1:]) == 0
# Not ru_maxrss, which a process takes over from the one that started it.
print(int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) // 1024)
"""


def rate(maker: Callable[[Path], Iterator[Path]], folder: Path, runs: int = 2) -> str:
    name = maker.__name__.replace("_", "-")
    place = folder / name
    place.mkdir(parents=True)
    inputs = list(map(str, maker(place)))
    found, peaks = [], []
    for _ in range(runs):
        flags = ["--max-negatives", "10"] if name == "msmarco" else []
        verb = ["pairs", name, *inputs, "--out", str(place / "out"), "--workers", "1", *flags]
        done = subprocess.run([sys.executable, "-c", _MEASURED, *verb], stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads((place / "out" / "pairs.json").read_bytes()))
        peaks.append(int(done.stdout.splitlines()[-1]))
        shutil.rmtree(place / "out")
    pairs, megabytes = (sorted(m[key] for m in found) for key in ("pairs_per_cpu_s", "input_mb_per_cpu_s"))
    shutil.rmtree(place)
    columns = [
        name,
        f"{found[0]['pairs']:,}",
        f"{pairs[0]:,} to {pairs[-1]:,}",
        f"{megabytes[0]:.1f} to {megabytes[-1]:.1f}",
        str(max(peaks)),
        str(maker.__doc__),
    ]
    return f"| {' | '.join(columns)} |"


if __name__ == "__main__":
    chosen = [maker for maker in MAKERS if not sys.argv[2:] or maker.__name__.replace("_", "-") in sys.argv[2:]]
    table = [rate(maker, Path(sys.argv[1])) for maker in chosen]
    print("| format | pairs | pairs/s | MB/s of input | peak MiB | made input |\n|---|---|---|---|---|---|")
    print("\n".join(table))
