"""Words of the command line become collections: folders, names of the catalogue, and files in other formats."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from largede.cache import cache_folder
from largede.errors import DataError
from largede.evaluation.datasets.catalogue import CATALOGUE, Entry, entries_of
from largede.evaluation.datasets.collection import ANSWER_MEASURES, SENTENCE_MEASURES, Collection
from largede.evaluation.datasets.download import PATIENCE, Patience, is_offline
from largede.evaluation.datasets.prepare import FORMATS, Store, prepare, prepare_file

_FILES = ("corpus.jsonl", "queries.jsonl")


def open_collections(
    words: Sequence[str],
    *,
    split: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
    catalogue: Mapping[str, Entry] = CATALOGUE,
    patience: Patience = PATIENCE,
) -> tuple[Collection, ...]:
    """What each word means, in order; whatever is not here yet is downloaded, checked and made.

    A word is a folder in BEIR format; a folder of such folders, which become a group; `squad:FILE` or `reqa:FILE`, a
    file of questions with answers in SQuAD's or MRQA's format (passages, or sentences as candidates); or a name of the
    catalogue. An existing folder comes before a name. `split` replaces the split that the catalogue reports; `cache` is
    the folder of collections (default: `datasets` in largede's cache). Raises DataError and MachineError in one message
    each.
    """
    store = Store(cache or cache_folder("datasets"), is_offline(offline), catalogue, patience)
    found = [collection for word in words for collection in _meant(str(word), split, store)]
    _check_names(found)
    return tuple(found)


def _meant(word: str, split: str | None, store: Store) -> list[Collection]:
    if not word.strip():
        raise DataError(
            "an empty name of a collection",
            expected="a folder, a file such as squad:FILE, or a name that `largede datasets` lists",
            mend="look at what the shell made of the command: a variable may be unset",
        )
    kind, colon, file = word.partition(":")
    if colon and kind in FORMATS:
        return [_of_file(kind, Path(file), split, store)]
    if Path(word).is_dir():
        return _of_folder(Path(word), split)
    return [
        collection
        for entry, part in entries_of(word, store.catalogue)
        for collection in _of_entry(entry, part, split, store)
    ]


def _of_entry(entry: Entry, part: str | None, split: str | None, store: Store) -> list[Collection]:
    if entry.kind == "passages":
        raise DataError(
            f"{entry.name} is a corpus without queries",
            expected="a collection with queries",
            mend="name open-nq or open-triviaqa, which search it",
        )
    folder = prepare(entry, store)
    reported = split or entry.split
    chosen = {"split": reported, "dev_split": _tunable(entry.dev_split, reported)}
    whole = Collection(entry.name, folder, **entry.conventions | chosen)
    if not entry.parts:
        return [whole]
    if part is not None:  # alone it is no mean of anything
        return [replace(whole, name=f"{entry.name}/{part}", folder=folder / part, group=None)]
    return [replace(whole, name=f"{entry.name}/{part}", folder=folder / part) for part in entry.parts]


def _of_folder(folder: Path, split: str | None) -> list[Collection]:
    """A folder in BEIR format, or the ones in it as a group. Raises DataError when it is neither."""
    if all((folder / file).is_file() for file in _FILES):
        return [_as_collection(folder, split, folder.resolve().name)]
    inside = sorted(child for child in folder.iterdir() if all((child / file).is_file() for file in _FILES))
    if not inside:
        there = ", ".join(sorted(child.name for child in folder.iterdir())[:8]) or "nothing"
        raise DataError(
            f"{folder} holds {there}",
            expected="corpus.jsonl, queries.jsonl and qrels/, or folders that do",
            mend="give the folder in BEIR format, or a name that `largede datasets` lists",
        )
    for child in sorted(folder.iterdir()):
        if child not in inside and any((child / part).exists() for part in (*_FILES, "qrels")):
            absent = ", ".join(file for file in _FILES if not (child / file).is_file())
            raise DataError(
                f"{child} has no {absent}",
                expected="every part of a group in BEIR format: the mean of fewer would be another figure",
                mend="complete that folder, or take it out of its group",
            )
    group = folder.resolve().name
    return [replace(_as_collection(child, split, f"{group}/{child.name}"), group=group) for child in inside]


def _as_collection(folder: Path, split: str | None, name: str) -> Collection:
    """A folder that bears a name of the catalogue is evaluated as that one is, but for splits that it does not have."""
    plain = Collection(name, folder, split=split or "test")
    paper = CATALOGUE.get(name)
    if paper is not None:
        plain = replace(plain, max_query_tokens=paper.max_query_tokens, max_passage_tokens=paper.max_passage_tokens)
        if not paper.has_answers:
            plain = replace(plain, measures=paper.measures, relevant_from=paper.relevant_from)
        if split is None and (folder / "qrels" / f"{paper.split}.tsv").is_file():
            plain = replace(plain, split=paper.split)
    if not (folder / "qrels").is_dir():
        return replace(plain, measures=ANSWER_MEASURES, has_answers=True)
    dev = "dev" if (folder / "qrels" / "dev.tsv").is_file() else None
    return replace(plain, dev_split=_tunable(dev, plain.split))


def _of_file(kind: str, file: Path, split: str | None, store: Store) -> Collection:
    name, folder = prepare_file(kind, file, store)
    if kind == "reqa":
        return Collection(name, folder, split=split or "test", measures=SENTENCE_MEASURES)
    return Collection(name, folder, split=split or "test", measures=ANSWER_MEASURES, has_answers=True)


def _tunable(dev: str | None, reported: str) -> str | None:
    return None if dev == reported else dev


def _check_names(found: Sequence[Collection]) -> None:
    """Figures go by name."""
    by_name: dict[str, Path] = {}
    for collection in found:
        if collection.name in by_name:
            raise DataError(
                f"two collections are called {collection.name!r}: {by_name[collection.name]} and {collection.folder}",
                expected="each collection once, under a name of its own",
                mend="leave one out, or rename its folder",
            )
        by_name[collection.name] = collection.folder
