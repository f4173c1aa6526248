"""The formats of labelled data as the command runs them: flags, counts in the manifest, memory, processes."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet
import pytest
from beir_folder import shared_data, write_jsonl, write_qrels
from labelled_files import lines_written, written

from data_tools.cli import VERBS, main
from data_tools.pairs import PairReader
from data_tools.readers import FORMATS
from largede.streams.pair import Pair
from largede.verbs import build_parser

PASSAGE = {"docid": "1", "passage_id": "1", "title": "t", "text": "p"}


def msmarco_files(folder: Path, passages: int) -> list[Path]:
    """One query for every ten passages, with two positives and, of four, negatives among twenty."""
    queries = range(passages // 10)
    text = "some words of a passage that is about as long as they are " * 5
    negatives = [
        {"qid": q, "pos": [q], "neg": {"bm25": [(q * 31 + n) % passages for n in range(1, 21)]}} for q in queries[::4]
    ]
    return [
        written(folder / "collection.tsv", "".join(f"{i}\t{text}{i}\n" for i in range(passages))),
        written(folder / "queries.train.tsv", "".join(f"{q}\tquery {q}\n" for q in queries)),
        written(
            folder / "qrels.train.tsv", "".join(f"{q}\t0\t{q}\t1\n{q}\t0\t{passages - 1 - q}\t1\n" for q in queries)
        ),
        lines_written(folder / "msmarco-hard-negatives.jsonl", negatives),
    ]


def beir_folder(folder: Path) -> list[Path]:
    write_jsonl(folder / "b" / "corpus.jsonl", [{"_id": "1", "title": "t", "text": "p"}])
    write_jsonl(folder / "b" / "queries.jsonl", [{"_id": "1", "text": "q"}])
    write_qrels(folder / "b", "train", [("1", "1", 1)])
    return [folder / "b"]


def parquet_file(folder: Path) -> list[Path]:
    arrow.parquet.write_table(arrow.table({"query": ["q"], "positive": ["p"]}), folder / "a.parquet")
    return [folder / "a.parquet"]


def lines(value: Any) -> Callable[[Path], list[Path]]:
    return lambda folder: [lines_written(folder / "a.jsonl", value)]


INPUTS: dict[str, Callable[[Path], list[Path]]] = {
    "msmarco": lambda folder: [
        written(folder / "collection.tsv", "1\tt\tp\n"),
        written(folder / "queries.tsv", "1\tq\n"),
        written(folder / "qrels.tsv", "1\t0\t1\t1\n"),
    ],
    "tevatron": lines([{"query_id": "1", "query": "q", "positive_passages": [PASSAGE], "negative_passages": []}]),
    "tevatron-ids": lines([PASSAGE, {"query_id": "1", "query_text": "q", "positive_document_ids": ["1"]}]),
    "sentence-transformers": lines([["q", "p"]]),
    "rocketqa": lambda folder: [written(folder / "a.tsv", "q\tt\tp\t1\n")],
    "dpr": lines([{"question": "q", "positive_ctxs": [PASSAGE]}]),
    "squad": lines([{"data": [{"title": "t", "paragraphs": [{"context": "p", "qas": [{"question": "q"}]}]}]}]),
    "beir": beir_folder,
    "jsonl": lines([{"query": "q", "positive": "p"}]),
    "parquet": parquet_file,
}


def run(format: str, inputs: list[Path], out: Path, *flags: str) -> list[Pair]:
    assert main(["pairs", format, *map(str, inputs), "--out", str(out), "--workers", "1", *flags]) == 0
    return list(PairReader(sorted(out.glob("part-*.jsonl.zst"))))


@pytest.mark.parametrize("name", INPUTS)
def test_the_command_turns_each_format_into_parts_of_pairs(name: str, tmp_path: Path) -> None:
    (pair,) = run(name, INPUTS[name](tmp_path), tmp_path / "out", "--source", "made")
    assert (pair.query, pair.positive, pair.source) == ("q", "p", "made")
    manifest = json.loads((tmp_path / "out" / "pairs.json").read_bytes())
    assert (manifest["format"], manifest["pairs"], manifest["dropped"]) == (name, 1, {})


@pytest.mark.parametrize("format", [format for format in FORMATS if format.name in INPUTS], ids=lambda f: f.name)
def test_the_example_of_a_format_is_a_command_it_understands(format: Any) -> None:
    program, *words = shlex.split(format.example)
    args = build_parser(program, "", VERBS).parse_args(words)
    assert args.format == format.name


def test_what_was_dropped_is_in_the_manifest_with_an_example(tmp_path: Path) -> None:
    path = lines_written(tmp_path / "a.jsonl", [{"query": "q"}, {"query": "q", "positive": "p"}, {"query": "q"}])
    run("jsonl", [path], tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "pairs.json").read_bytes())
    assert manifest["dropped"] == {"no positive, or an empty one": {"count": 2, "example": f"{path} line 1"}}


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--max-positives", "0"], "--max-positives 0"),
        (["--last-rank", "0"], "--first-rank 1, --last-rank 0"),
        (["--min-grade", "5"], "no pairs in"),
    ],
)
def test_flags_that_cannot_be_are_refused(
    tmp_path: Path, flags: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = INPUTS["msmarco"](tmp_path)
    words = ["pairs", "msmarco", *map(str, inputs), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main([*words, *flags]) == 2
    assert complaint in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == sorted(inputs)


def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    inputs = msmarco_files(tmp_path, 2000)
    run("msmarco", inputs, tmp_path / "one")
    run("msmarco", inputs, tmp_path / "two", "--workers", "2")
    contents = [[path.read_bytes() for path in sorted((tmp_path / out).glob("part-*"))] for out in ("one", "two")]
    assert contents[0] == contents[1]
    pairs = list(PairReader(sorted((tmp_path / "one").glob("part-*"))))
    assert len(pairs) == 400
    assert {len(pair.negatives) for pair in pairs} == {0, 20}


def test_memory_does_not_grow_with_the_collection(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from data_tools import groups; from data_tools.cli import main\n"
        # Bounds of the real size would need gigabytes before they bind.
        "groups.RUN_BYTES = groups.BUCKET_BYTES = 1 << 20\n"
        "assert main(sys.argv[1:]) == 0\n"
        # Not ru_maxrss, which a process takes over from the one that started it.
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )

    def peak_kib(passages: int) -> int:
        folder = tmp_path / str(passages)
        inputs = map(str, msmarco_files(folder, passages))
        words = ["pairs", "msmarco", *inputs, "--out", str(folder / "out"), "--workers", "1"]
        done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1])

    # Eight times the text, 14 MB more, and more than that again as records.
    assert peak_kib(50_000) < peak_kib(6_250) + 8_000


@pytest.mark.parametrize(("name", "pairs"), [("nfcorpus", 2590), ("wikiqa", 1040)])
def test_real_collections_pass_through_the_command(name: str, pairs: int, tmp_path: Path) -> None:
    """A query of NFCorpus may have hundreds of positives, each naming all others: one is enough here."""
    folder = shared_data("collections", name)
    found = run("beir", [folder], tmp_path / "out", "--max-positives", "1" if name == "nfcorpus" else "1000")
    assert len(found) == pairs
    assert {pair.source for pair in found} == {name}
