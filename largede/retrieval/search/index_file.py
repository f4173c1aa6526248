"""A built index as a folder: `index.faiss`, and `manifest.json` saying what it was built of. Whole, or absent.

FAISS reads its files without checks of its own (a damaged one can end the process), so the checksum is looked at first.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from largede.errors import DataError
from largede.files import as_kind, fingerprint_of, read_json_object, sha256_file, write_json, writing_folder
from largede.retrieval.encode import Embeddings
from largede.retrieval.search_settings import SearchSettings

_REMOVE = "remove that folder and run the command again"


@dataclass(frozen=True)
class IndexFacts:
    """`fingerprint`: of vectors and settings. `bytes`: of the file. `build_s`: reading the vectors included."""

    fingerprint: str
    sha256: str
    rows: int
    dimension: int
    bytes: int
    build_s: float
    settings: dict[str, Any]
    faiss: str


@dataclass(frozen=True)
class OpenIndex:
    folder: Path
    index: Any
    facts: IndexFacts


def index_fingerprint(embeddings: Embeddings, settings: SearchSettings) -> str:
    """Of every stored vector and of what the index depends on."""
    vectors = [shard.vectors_sha256 for shard in embeddings.shards]
    return fingerprint_of([embeddings.fingerprint, vectors, settings.of_index()])


def default_folder(embeddings: Embeddings, settings: SearchSettings) -> Path:
    """Inside the embeddings' folder: the index goes when they go."""
    return embeddings.folder / f"index-{settings.kind}-{index_fingerprint(embeddings, settings)[:12]}"


def write_index(
    folder: Path, embeddings: Embeddings, settings: SearchSettings, build: Callable[[], tuple[Any, float]]
) -> None:
    """`build` gives the index and the seconds it took."""
    import faiss

    with writing_folder(folder) as partial:
        index, seconds = build()
        path = partial / "index.faiss"
        faiss.write_index(index, str(path))
        facts = IndexFacts(
            index_fingerprint(embeddings, settings),
            sha256_file(path),
            index.ntotal,
            index.d,
            path.stat().st_size,
            seconds,
            settings.of_index(),
            faiss.__version__,
        )
        write_json(partial / "manifest.json", asdict(facts))


def read_index(folder: Path, embeddings: Embeddings, settings: SearchSettings) -> OpenIndex:
    """Raises DataError when the index is damaged, or of other vectors or settings."""
    import faiss

    facts = _read_facts(folder)
    path = folder / "index.faiss"
    if facts.fingerprint != index_fingerprint(embeddings, settings):
        other = "other settings" if facts.settings != settings.of_index() else "other embeddings"
        raise DataError(
            f"the index {folder} was built with {other} ({facts.settings}, {facts.rows:,} documents)",
            expected=f"{settings.of_index()} of the {embeddings.rows:,} documents of {embeddings.folder}",
            mend="name another folder for the index, or remove that one",
        )
    if not path.is_file() or sha256_file(path) != facts.sha256:
        raise DataError(f"the index {path} is damaged", expected="the checksum of manifest.json", mend=_REMOVE)
    return OpenIndex(folder, faiss.read_index(str(path)), facts)


def _read_facts(folder: Path) -> IndexFacts:
    path = folder / "manifest.json"
    try:
        return as_kind(IndexFacts, read_json_object(path, _REMOVE))
    except TypeError as error:
        raise DataError(f"{path} is damaged ({error})", expected="what largede wrote", mend=_REMOVE) from None
