"""A catalogue entry or a file becomes a folder in BEIR format below the cache folder, whole or not at all.

CACHE/NAME/                 the folder, with dataset.json: where its files came from and their checksums
CACHE/downloads/            published files until they are unpacked; files put there by hand are used and stay
CACHE/files/KIND-.../       made from a file, by its fingerprint
CACHE/claims/               which process makes which folder: the others wait for it
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from largede.errors import DataError
from largede.evaluation.datasets.archive import unpack_zip
from largede.evaluation.datasets.catalogue import CATALOGUE, HOW_BEIR_CONVERTED, Entry, RemoteFile
from largede.evaluation.datasets.download import PATIENCE, Fetched, Patience, fetch
from largede.evaluation.datasets.dpr import write_answered_queries, write_passages
from largede.evaluation.datasets.from_squad import CONVERTER, write_sentences, write_squad_passages
from largede.evaluation.datasets.trec_dl import write_trec_queries
from largede.files import sha256_file, write_json, writing_folder
from largede.runs.claims import Claim

FORMATS: dict[str, Callable[[Path, Path], dict[str, int]]] = {"squad": write_squad_passages, "reqa": write_sentences}
"""What a word before a colon means: (file, folder to fill) -> counts of what was made and left out."""


@dataclass(frozen=True)
class Store:
    """Where collections are kept and how they may come."""

    cache: Path
    offline: bool = False
    catalogue: Mapping[str, Entry] = field(default_factory=lambda: CATALOGUE)
    patience: Patience = PATIENCE

    @property
    def downloads(self) -> Path:
        return self.cache / "downloads"

    def is_here(self, entry: Entry) -> bool:
        return _is_whole(entry, self.cache / entry.folder_name)

    def fetched(self, file: RemoteFile) -> Fetched:
        return fetch(file, self.downloads, offline=self.offline, patience=self.patience)


def prepare(entry: Entry, store: Store) -> Path:
    """The folder of an entry, made if it is not there. Raises DataError for a licensed one that is not there."""
    folder = store.cache / entry.folder_name
    if _is_whole(entry, folder):
        return folder
    if entry.licensed is not None:
        raise _ask_for_it(entry, folder)
    if folder.exists():
        raise _half_there(entry, folder)
    # Outside the claim of this entry: two claims at once, of which each waits for the other's, cannot be.
    corpus = prepare(store.catalogue[entry.corpus_of], store) if entry.corpus_of else None
    with _alone(store, entry.folder_name):
        if not folder.exists():
            _make(entry, store, folder, corpus)
    return folder


def prepare_file(kind: str, file: Path, store: Store) -> tuple[str, Path]:
    """Name and folder of a file in another format, converted unless this file's bytes were before."""
    if not file.is_file():
        raise DataError(f"there is no file {file}", expected=f"{kind}:FILE", mend="check the path")
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in file.name.partition(".json")[0])
    name = f"{stem}-sentences" if kind == "reqa" else stem
    folder = store.cache / "files" / f"{kind}-{CONVERTER}-{sha256_file(file)[:16]}"
    if not folder.exists():
        with _alone(store, folder.name):
            if not folder.exists():
                with writing_folder(folder) as partial:
                    counts = FORMATS[kind](file, partial)
                    write_json(partial / "dataset.json", {"name": name, "made from": file.name, "counts": counts})
                print(f"{name}: {_words(counts)}", file=sys.stderr, flush=True)
    return name, folder


def _make(entry: Entry, store: Store, folder: Path, corpus: Path | None) -> None:
    fetched = [store.fetched(file) for file in entry.files]
    print(f"{entry.name}: making {folder}", file=sys.stderr, flush=True)
    for left in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed: nobody else is at this folder now
    with writing_folder(folder) as partial:
        _fill(entry, [one.path for one in fetched], partial, corpus)
        if not _is_whole(entry, partial):
            raise _half_there(entry, partial)
        write_json(
            partial / "dataset.json",
            {
                "name": entry.folder_name,
                "files": [
                    {"address": file.address} | one.as_json() for file, one in zip(entry.files, fetched, strict=True)
                ],
            },
        )
    for one in fetched:
        one.discard()


def _fill(entry: Entry, files: Sequence[Path], partial: Path, corpus: Path | None) -> None:
    if entry.kind == "archive":
        _unpack(files[0], partial, entry.folder_name)
    elif entry.kind == "passages":
        write_passages(files[0], partial / "corpus.jsonl", entry.documents)
    elif entry.kind == "sentences":
        write_sentences(files[0], partial)
    elif corpus is not None:
        # Twenty million passages need not lie here twice; relative, so that the cache folder may be moved.
        (partial / "corpus.jsonl").symlink_to(Path("..") / corpus.name / "corpus.jsonl")
        if entry.kind == "questions":
            write_answered_queries(files[0], partial / "queries.jsonl", entry.name)
        else:
            write_trec_queries(files[0], files[1], partial, also=corpus, also_split=entry.dev_split)


def _unpack(path: Path, partial: Path, name: str) -> None:
    """The archive's one folder, or what it holds without one, becomes `partial`."""
    unpacked = partial / ".unpacked"
    unpacked.mkdir()
    unpack_zip(path, unpacked)
    root = unpacked / name if (unpacked / name).is_dir() else unpacked
    for child in list(root.iterdir()):
        os.replace(child, partial / child.name)
    shutil.rmtree(unpacked)


def _is_whole(entry: Entry, folder: Path) -> bool:
    """Whether everything that the entry needs is in the folder."""
    if entry.kind == "passages":
        return (folder / "corpus.jsonl").is_file()
    files = ["corpus.jsonl", "queries.jsonl"] + ([] if entry.has_answers else [f"qrels/{entry.split}.tsv"])
    homes = [folder / part for part in entry.parts] or [folder]
    return all((home / file).is_file() for home in homes for file in files)


@contextmanager
def _alone(store: Store, what: str) -> Iterator[None]:
    """One process of many makes `what`; the others wait here until it is done."""
    claim = Claim(store.cache / "claims" / f"{what.replace('/', '-')}.json")
    holder = claim.take()
    if holder is not None:
        print(f"{what}: waiting for {holder.words()}, which is making it", file=sys.stderr, flush=True)
        claim.take_in_turn()
    try:
        yield
    finally:
        claim.release()


def _ask_for_it(entry: Entry, folder: Path) -> DataError:
    assert entry.licensed is not None
    return DataError(
        f"{entry.name} is not public, and {folder} does not hold it",
        expected=f"corpus.jsonl, queries.jsonl and qrels/{entry.split}.tsv in {folder}",
        mend=f"ask for it ({'; '.join(entry.licensed.ask)}), convert it as BEIR did ({entry.licensed.convert}; "
        f"{HOW_BEIR_CONVERTED}), put the files there, and the name works",
    )


def _half_there(entry: Entry, folder: Path) -> DataError:
    parts = f" in each of {', '.join(entry.parts)}" if entry.parts else ""
    qrels = "" if entry.has_answers else f" and qrels/{entry.split}.tsv"
    return DataError(
        f"{folder} is there but does not hold all of {entry.name}",
        expected=f"corpus.jsonl, queries.jsonl{qrels}{parts}",
        mend="remove the folder and run the command again",
    )


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {noun}" for noun, number in counts.items())
