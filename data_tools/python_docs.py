"""The embedded default corpus: pairs mined from the Python packages installed beside us, split by package.

`largede-data pairs python-docs --out OUT` writes

    train.jsonl      query, positive, query_id, positive_id, group: every package that is not held out
    heldout/         BEIR format, of the held-out packages: qrels/test.tsv with 3,000 pairs, qrels/dev.tsv with 1,000
                     others, and a corpus.jsonl of all 4,000 passages, which both search
    manifest.json    packages with versions and pairs, what each filter dropped, the fingerprint of the inputs

Mined are the standard library and what largede depends on, so that further packages of an environment (linters, test
tools) change nothing. The standard library and SciPy are held out. No question and no answer occurs twice, within or
across the three parts. The same installed packages give the same bytes.
"""

import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from data_tools.docstrings import Mined, Pair, mine_file
from largede.errors import DataError
from largede.files import refuse_existing, write_text, writing_folder
from largede.processors import processors
from largede.text import text_key

STANDARD_LIBRARY = "python"
HELD_OUT = frozenset({STANDARD_LIBRARY, "scipy"})
TEST_PAIRS = 3000
DEV_PAIRS = 1000
LEAST_TRAIN_PAIRS = 2000
FORMAT = 2
"""Raise it when the same sources give other pairs, so that fingerprints differ."""

SKIPPED_FOLDERS = (
    frozenset({"__pycache__", "test", "tests", "testing", "benchmarks", "examples"})
    | frozenset({"_vendor", "vendor", "vendored", "_vendored", "third_party", "externals"})
    | frozenset({"site-packages", "dist-packages", "ensurepip", "idlelib", "lib2to3", "turtledemo"})
)
"""Not documentation written for readers; copies of other packages; what the standard library's folder also holds."""


@dataclass(frozen=True)
class Package:
    """A top-level package or module: where its sources are, relative to `root`, and their sizes in bytes."""

    name: str
    version: str
    root: Path
    sources: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Corpus:
    """The three parts, disjoint in ids, questions and answers; and what was left out on the way."""

    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    dev: tuple[Pair, ...]
    dropped: Mapping[str, int]


def installed_packages() -> tuple[Package, ...]:
    """The standard library and the packages largede depends on, as installed for the running interpreter, by name."""
    paths = sysconfig.get_paths()
    found = {STANDARD_LIBRARY: _package(STANDARD_LIBRARY, platform.python_version(), Path(paths["stdlib"]), ".")}
    versions = _dependencies("largede")
    owners = importlib.metadata.packages_distributions()
    for root in dict.fromkeys((Path(paths["purelib"]), Path(paths["platlib"]))):
        for entry in sorted(root.iterdir()):
            name = entry.stem
            owner = next((o for o in map(canonicalize_name, owners.get(name, ())) if o in versions), None)
            if owner and name.isidentifier() and entry.suffix in ("", ".py"):
                found.setdefault(name, _package(name, versions[owner], root, entry.name))
    return tuple(found[name] for name in sorted(found) if found[name].sources)


def _dependencies(distribution: str) -> dict[str, str]:
    """Canonical name and version of every installed distribution that `distribution` needs, directly or not."""
    versions: dict[str, str] = {}
    visited = set()
    waiting = [(distribution, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in visited:
            continue
        visited.add((name, extra))
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        versions[name] = found.version
        for need in map(Requirement, found.requires or ()):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting.extend((canonicalize_name(need.name), wanted) for wanted in ("", *sorted(need.extras)))
    return {name: version for name, version in versions.items() if name != distribution}


def fingerprint(packages: Iterable[Package], seed: int) -> str:
    """Changes when a package, the interpreter, the seed or the format does; reads no file."""
    digest = hashlib.blake2b(f"{FORMAT} {seed}".encode(), digest_size=16)
    for package in packages:
        digest.update(repr((package.name, package.version, package.sources)).encode())
    return digest.hexdigest()


def write_python_docs(out: Path, seed: int = 0, packages: tuple[Package, ...] | None = None) -> Corpus:
    """Mine, split and write the whole folder; `out` appears complete or not at all.

    Raises DataError when `out` already holds something, or when the environment has too little documentation.
    """
    refuse_existing(out, DataError)
    packages = installed_packages() if packages is None else packages
    corpus = split(mine(packages), seed)
    _check_size(corpus, packages)
    with writing_folder(out) as part:
        _write_jsonl(part / "train.jsonl", map(_training_row, corpus.train))
        _write_beir(part / "heldout", {"test": corpus.test, "dev": corpus.dev})
        write_text(part / "manifest.json", json.dumps(_manifest(corpus, packages, seed), indent=1) + "\n")
    return corpus


def mine(packages: Iterable[Package]) -> Iterator[Mined]:
    """Every source file of every package, in order, parsed by one process per core."""
    tasks = [(p.root / source, p.name, _module(source)) for p in packages for source, _ in p.sources]
    # Spawned, since a forked child of a process with threads (a test run, a tokenizer) may inherit a held lock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processors(), mp_context=context) as pool:
        yield from pool.map(mine_file, *zip(*tasks, strict=True), chunksize=100)


def split(mined: Iterable[Mined], seed: int) -> Corpus:
    """Held-out pairs first, so that of equal texts the held-out one stays and no training pair repeats it."""
    dropped: Counter[str] = Counter()
    pairs: list[Pair] = []
    for of_file in mined:
        dropped.update(of_file.dropped)
        pairs.extend(of_file.pairs)
    pairs.sort(key=lambda pair: (not _is_held_out(pair), pair.id))
    distinct = list(_distinct(pairs, dropped))
    held_out = sorted(filter(_is_held_out, distinct), key=lambda pair: text_key(f"{seed} {pair.id}"))
    return Corpus(
        train=tuple(pair for pair in distinct if not _is_held_out(pair)),
        test=tuple(held_out[:TEST_PAIRS]),
        dev=tuple(held_out[TEST_PAIRS : TEST_PAIRS + DEV_PAIRS]),
        dropped=dict(sorted(dropped.items())),
    )


def _distinct(pairs: Iterable[Pair], dropped: Counter[str]) -> Iterator[Pair]:
    seen: dict[str, set[object]] = {"same name": set(), "same question": set(), "same answer": set()}
    for pair in pairs:
        keys = (pair.id, _words_key(pair.query), _words_key(pair.rest))
        repeated = [reason for (reason, known), key in zip(seen.items(), keys, strict=True) if key in known]
        if repeated:
            dropped[repeated[0]] += 1
            continue
        for known, key in zip(seen.values(), keys, strict=True):
            known.add(key)
        yield pair


def _words_key(text: str) -> int:
    """Equal for texts that differ only in case, punctuation and spacing."""
    return text_key("".join(c if c.isalnum() else " " for c in text.lower()))


def _is_held_out(pair: Pair) -> bool:
    return pair.id.partition("/")[0] in HELD_OUT


def _package(name: str, version: str, root: Path, top: str) -> Package:
    sources = _walk(root, top) if (root / top).is_dir() else _listed(root, "", [top])
    return Package(name, version, root, tuple(sorted(sources)))


def _walk(root: Path, top: str) -> Iterator[tuple[str, int]]:
    for folder, folders, files in os.walk(root / top):
        folders[:] = [f for f in folders if f not in SKIPPED_FOLDERS and f.isidentifier()]
        yield from _listed(root, os.path.relpath(folder, root), files)


def _listed(root: Path, folder: str, files: Iterable[str]) -> Iterator[tuple[str, int]]:
    for file in files:
        generated_or_test = file.startswith("test_") or file.endswith(("_test.py", "_pb2.py", "_pb2_grpc.py"))
        if file.endswith(".py") and file != "conftest.py" and not generated_or_test:
            source = os.path.normpath(os.path.join(folder, file))
            yield source, (root / source).stat().st_size


def _module(source: str) -> str:
    """`json/__init__.py` -> `json`, `json/decoder.py` -> `json.decoder`."""
    return source.removesuffix(".py").removesuffix(f"{os.sep}__init__").replace(os.sep, ".")


def _check_size(corpus: Corpus, packages: tuple[Package, ...]) -> None:
    held_out = len(corpus.test) + len(corpus.dev)
    if len(corpus.train) < LEAST_TRAIN_PAIRS or held_out < TEST_PAIRS + DEV_PAIRS:
        raise DataError(
            f"the {len(packages)} installed packages give {len(corpus.train)} training and {held_out} held-out pairs",
            expected=f"at least {LEAST_TRAIN_PAIRS} training and {TEST_PAIRS + DEV_PAIRS} held-out pairs "
            f"(from {' and '.join(sorted(HELD_OUT))})",
            mend="run in the environment launch/quickstart.sh installs, with docstrings kept in the sources",
        )


def _training_row(pair: Pair) -> dict[str, str]:
    return {
        "query": pair.query,
        "positive": pair.positive,
        "query_id": _query_id(pair),
        "positive_id": pair.id,
        "group": pair.group,
    }


def _query_id(pair: Pair) -> str:
    """Unlike the passage's id: BEIR's evaluation drops a passage whose id is that of the query."""
    return f"ask:{pair.id}"


def _write_beir(folder: Path, splits: Mapping[str, tuple[Pair, ...]]) -> None:
    """One qrels file for each split. One relevant passage for each query, and no passage beyond those of all splits."""
    by_id = sorted((pair for pairs in splits.values() for pair in pairs), key=lambda pair: pair.id)
    _write_jsonl(folder / "corpus.jsonl", ({"_id": p.id, "title": "", "text": p.positive} for p in by_id))
    _write_jsonl(folder / "queries.jsonl", ({"_id": _query_id(p), "text": p.query} for p in by_id))
    for split, pairs in splits.items():
        judged = sorted(f"{_query_id(p)}\t{p.id}\t1" for p in pairs)
        write_text(folder / "qrels" / f"{split}.tsv", "\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")


def _manifest(corpus: Corpus, packages: tuple[Package, ...], seed: int) -> dict[str, object]:
    used = Counter(p.id.partition("/")[0] for p in corpus.train + corpus.test + corpus.dev)
    return {
        "fingerprint": fingerprint(packages, seed),
        "seed": seed,
        "pairs": {"train": len(corpus.train), "test": len(corpus.test), "dev": len(corpus.dev)},
        "dropped": corpus.dropped,
        "packages": {
            p.name: {"version": p.version, "pairs": used[p.name], "held_out": p.name in HELD_OUT}
            for p in packages
            if used[p.name]
        },
    }


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
