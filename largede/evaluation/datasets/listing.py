"""What `largede datasets` prints: the catalogue as a table, and one line for each collection that was fetched."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from largede.cache import cache_folder
from largede.evaluation.datasets.catalogue import CATALOGUE, GROUPS, HOW_BEIR_CONVERTED, Entry
from largede.evaluation.datasets.collections import open_collections
from largede.evaluation.datasets.download import is_offline
from largede.evaluation.datasets.prepare import Store, prepare

_COLUMNS = ("name", "documents", "queries", "split", "tuned on", "tokens", "measures", "download", "here")


def catalogue_lines(cache: Path | None = None) -> list[str]:
    """Every name, its numbers, and whether it is in the cache; then how to get the sets that need a licence."""
    store = Store(cache or cache_folder("datasets"))
    rows = [_COLUMNS, *(_row(entry, store) for entry in CATALOGUE.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    groups = [f"{name}: {' '.join(members)}" for name, members in GROUPS.items()]
    return [
        *table,
        "",
        f"kept in {store.cache}",
        "tokens: longest query and passage that are read. * each query is a document too, and is left out of its list",
        "",
        "Several by one name, a mean in reports only for cqadupstack (its parts: cqadupstack/android ...)",
        *(f"  {line}" for line in groups),
        "",
        "Not public: ask for it, convert it as BEIR did, and put corpus.jsonl, queries.jsonl and qrels/test.tsv into",
        f"the folder; then the name works. BEIR's own words: {HOW_BEIR_CONVERTED}",
        *(line for entry in CATALOGUE.values() for line in _how_to_get(entry, store)),
        "",
        "Other words: a folder in BEIR format, a folder of such folders, squad:FILE and reqa:FILE (SQuAD's format or",
        "MRQA's: contexts, or their sentences, are what is searched)",
    ]


def download_ahead(words: Sequence[str], cache: Path | None = None, offline: bool = False) -> Iterator[str]:
    """Make each collection that the words name; a line for each as it is done. Raises as `open_collections` does."""
    for word in words:
        entry = CATALOGUE.get(word)
        if entry is not None and entry.kind == "passages":
            yield f"{word}  {prepare(entry, Store(cache or cache_folder('datasets'), is_offline(offline)))}"
            continue
        for found in open_collections([word], cache=cache, offline=offline):
            yield f"{found.name}  {found.folder}"


def _row(entry: Entry, store: Store) -> tuple[str, ...]:
    return (
        entry.name,
        f"{entry.documents:,}" if entry.documents else "?",
        "-" if entry.kind == "passages" else f"{entry.queries:,}{'*' if entry.own_documents else ''}",
        "-" if entry.has_answers or entry.kind == "passages" else entry.split,
        entry.dev_split or "-",
        f"{entry.max_query_tokens}/{entry.max_passage_tokens}",
        "-" if entry.kind == "passages" else " ".join(entry.measures[:2]),
        _size(entry),
        "yes" if store.is_here(entry) else "no",
    )


def _size(entry: Entry) -> str:
    if entry.licensed is not None:
        return "not public"
    if entry.download_bytes is None:
        return "?"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if entry.download_bytes >= size:
            return f"{entry.download_bytes / size:.1f} {unit}"
    return f"{entry.download_bytes} B"


def _how_to_get(entry: Entry, store: Store) -> list[str]:
    if entry.licensed is None:
        return []
    return [
        f"  {entry.name}: {store.cache / entry.folder_name}",
        *(f"    {line}" for line in entry.licensed.ask),
        f"    {entry.licensed.convert}",
    ]
