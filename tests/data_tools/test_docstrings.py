"""Pairs of single source files, and the default corpus of small made-up packages."""

import json
from pathlib import Path

import pytest

from data_tools import python_docs
from data_tools.docstrings import mine_file, refusal, split_docstring
from data_tools.python_docs import Package, installed_packages, write_python_docs
from largede.errors import DataError

REST = "Values outside of the interval become the nearest edge of it, so that nothing larger than high remains."


def mined(tmp_path: Path, source: str) -> list[tuple[str, str, str]]:
    path = tmp_path / "box.py"
    path.write_text(source)
    return [(pair.id, pair.query, pair.positive) for pair in mine_file(path, "tools", "tools.box").pairs]


def test_the_first_sentence_asks_and_signature_with_the_rest_answers(tmp_path: Path) -> None:
    source = f'''
class Box:
    """Hold values that have an order. {REST}"""
    def __init__(self, size, *rest, deep=True, **more): ...
    def clip(self, low, /, high):
        """Limit the values in a box.

        {REST}
        """
'''
    assert mined(tmp_path, source) == [
        ("tools/tools.box.Box", "Hold values that have an order.", f"tools.box.Box(size, *rest, deep, **more): {REST}"),
        ("tools/tools.box.Box.clip", "Limit the values in a box.", f"tools.box.Box.clip(low, high): {REST}"),
    ]


@pytest.mark.parametrize(
    ("docstring", "query", "rest"),
    [
        ("Load a file, e.g. Some table. Then close it.", "Load a file, e.g. Some table.", "Then close it."),
        ("Return the sum of 1.5 and x.\nMore follows.", "Return the sum of 1.5 and x.", "More follows."),
        ("No full stop here\n\nThe rest.", "No full stop here", "The rest."),
        ("No full stop here\nArgs:\n    x: one", "No full stop here", "Args: x: one"),
        ("Uses :class:`~a.b.Box` and ``x``.\n\n[`Box`] is one.\n-------", "Uses a.b.Box and x.", "Box is one."),
        ("Only a sentence.", "Only a sentence.", ""),
        ("", "", ""),
    ],
)
def test_splitting(docstring: str, query: str, rest: str) -> None:
    assert split_docstring(docstring) == (query, rest)


def test_long_answers_are_cut_to_their_first_200_words() -> None:
    words = [f"w{i}" for i in range(500)]
    assert split_docstring("Count the words.\n\n" + " ".join(words))[1].split() == words[:200]


@pytest.mark.parametrize(
    ("query", "rest", "reason"),
    [
        ("Limit the values in a box.", REST, None),
        ("Limit the values in a box.", "", "nothing beyond the first sentence"),
        ("Limit it.", REST, "question too short or too long"),
        ("x = 1 + 2 * (3 - 4) / 5", REST, "question is no English prose"),
        ("Begrenzt die Werte für alle.", REST, "question is no English prose"),
        ("Limit the values in a box.", "Too few words to answer.", "answer too short"),
        ("Limit the values in a box.", ">>> 1 + 2 3 " * 12, "answer is no English prose"),
        ("Limit the values in a box.", f"Deprecated since 2.0. {REST}", "deprecated"),
        ("Limit the values in a box.", f"{REST} This will limit the values in a box!", "answer repeats the question"),
    ],
)
def test_refusals(query: str, rest: str, reason: str | None) -> None:
    assert refusal(query, rest, "tools.clip(low)") == reason


def test_sources_are_parsed_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    source = f'open({str(trap)!r}, "w")\ndef f():\n    """Do something of some use. {REST}"""\n'
    assert len(mined(tmp_path, source)) == 1
    assert not trap.exists()


@pytest.mark.parametrize("source", [b'"""\nclass:', b'"""\xff"""', b'"""\0"""', b'"""' + b"(" * 5000])
def test_a_file_that_does_not_parse_is_counted(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "bad.py").write_bytes(source)
    found = mine_file(tmp_path / "bad.py", "tools", "tools.bad")
    assert (found.pairs, dict(found.dropped)) == ((), {"file does not parse": 1})


def packages(root: Path, sizes: dict[str, int]) -> tuple[Package, ...]:
    """One module for each name, with that many documented functions of distinct texts."""
    made = []
    for name, size in sorted(sizes.items()):
        # Names are letters and numbers are spelt out, since the filters want prose.
        words = ["".join(chr(97 + int(digit)) for digit in f"{i:04}") for i in range(size)]
        functions = [f'def f{w}(x):\n    """Compute the {name} of {w}. In {name} {w}: {REST}"""\n' for w in words]
        (root / f"{name}.py").write_text("".join(functions))
        made.append(Package(name, "1.0", root, ((f"{name}.py", 0),)))
    return tuple(made)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_docs, "TEST_PAIRS", 12)
    monkeypatch.setattr(python_docs, "DEV_PAIRS", 5)
    monkeypatch.setattr(python_docs, "LEAST_TRAIN_PAIRS", 8)


def read_jsonl(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_folder(tmp_path: Path, small: None) -> None:
    write_python_docs(tmp_path / "out", 0, packages(tmp_path, {"python": 10, "scipy": 10, "alpha": 6, "beta": 4}))
    train = read_jsonl(tmp_path / "out" / "train.jsonl")
    assert len(train) == 10
    assert set(train[0]) == {"query", "positive", "query_id", "positive_id", "group"}
    assert {row["group"] for row in train} == {"alpha", "beta"}
    heldout = tmp_path / "out" / "heldout"
    corpus = {row["_id"]: row["text"] for row in read_jsonl(heldout / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in read_jsonl(heldout / "queries.jsonl")}
    assert len(corpus) == len(set(corpus.values())) == len(set(queries.values())) == 17
    assert {name.partition("/")[0] for name in corpus} <= {"python", "scipy"}
    assert not queries.keys() & corpus.keys(), "BEIR drops a passage whose id is that of the query"
    judged = {}
    for split, size in (("test", 12), ("dev", 5)):
        head, *lines = (heldout / "qrels" / f"{split}.tsv").read_text().splitlines()
        assert head == "query-id\tcorpus-id\tscore"
        assert len(lines) == size
        judged.update(line.split("\t")[:2] for line in lines)
    assert judged.keys() == queries.keys(), "no query is in both splits"
    assert set(judged.values()) == corpus.keys()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["pairs"] == {"train": 10, "test": 12, "dev": 5}
    assert manifest["packages"]["alpha"] == {"version": "1.0", "pairs": 6, "held_out": False}
    assert manifest["packages"]["scipy"]["held_out"]


def test_a_training_pair_that_repeats_a_held_out_text_is_dropped(tmp_path: Path, small: None) -> None:
    made = packages(tmp_path, {"python": 20, "alpha": 10})
    copied = (tmp_path / "python.py").read_text().replace("Compute the python of aaaa.", "Compute another thing here.")
    (tmp_path / "copy.py").write_text(copied)
    corpus = write_python_docs(tmp_path / "out", 0, (*made, Package("copy", "1.0", tmp_path, (("copy.py", 0),))))
    assert {pair.group for pair in corpus.train} == {"alpha"}
    assert corpus.dropped == {"same answer": 1, "same question": 19}


def test_the_same_packages_give_the_same_bytes_and_the_seed_moves_the_sample(tmp_path: Path, small: None) -> None:
    made = packages(tmp_path, {"python": 30, "alpha": 10})
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        write_python_docs(tmp_path / out, seed, made)
    names = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()]
    assert len(names) == 6
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)
    corpus = Path("heldout") / "corpus.jsonl"
    assert (tmp_path / "one" / corpus).read_bytes() != (tmp_path / "three" / corpus).read_bytes()


def test_too_little_documentation_is_said_and_nothing_is_left(tmp_path: Path, small: None) -> None:
    made = packages(tmp_path, {"python": 16, "alpha": 10})
    with pytest.raises(DataError, match="give 10 training and 16 held-out pairs") as error:
        write_python_docs(tmp_path / "new" / "out", 0, made)
    assert "at least 8 training and 17 held-out pairs" in str(error.value)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(DataError, match="already exists"):
        write_python_docs(tmp_path, 0, ())
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_installed_packages_are_what_largede_needs() -> None:
    found = {package.name: package for package in installed_packages()}
    assert {"python", "scipy", "torch", "transformers", "numpy"} <= found.keys()
    # Lint and test tools come and go with the dev extra; they must not change the corpus.
    assert not {"largede", "data_tools", "pip", "mypy", "hypothesis", "sentence_transformers"} & found.keys()
    sources = [source for source, _ in found["python"].sources]
    assert "json/decoder.py" in sources
    assert not [s for s in sources if s.startswith(("test/", "site-packages/")) or "/tests/" in s]
