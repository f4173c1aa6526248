"""A corpus becomes a folder of embedding shards.

    settings.json      what the folder is for; written first, so that nothing else can be mixed in
    shard-00000.npy    float32 or float16, (rows, dimension)
    shard-00000.ids    the document id of each row
    shard-00000.json   rows and checksums; written last: a shard without it does not count
    manifest.json      settings and all shards; written by whichever process finds the last shard done

Shard k belongs to process k mod W. The processes meet in the folder alone: there is no collective, so none can time
out, and a run that was killed anywhere goes on with the shards that are missing.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from largede.errors import DataError
from largede.files import fingerprint_of, read_json_object, sha256_file, write_json, writing
from largede.retrieval.corpus import Corpus
from largede.retrieval.encoder import Model, Side, TextEncoder, embed_checked
from largede.retrieval.processes import Process
from largede.retrieval.progress import Progress

# Texts read, sorted by length and embedded at a time: large enough for even batches, small enough to hold.
_WINDOW = 4096


@dataclass(frozen=True)
class EncodeSettings:
    side: Side = "passage"
    max_tokens: int = 512
    shard_size: int = 50_000
    dtype: Literal["float32", "float16"] = "float32"


@dataclass(frozen=True)
class Shard:
    name: str
    rows: int
    dimension: int
    vectors_sha256: str
    ids_sha256: str


@dataclass(frozen=True)
class Embeddings:
    """A finished folder. `fingerprint` is that of the settings: model, corpus and how the one met the other."""

    folder: Path
    fingerprint: str
    model: str
    corpus: str
    similarity: str
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def dimension(self) -> int:
        return self.shards[0].dimension


def settings_fingerprint(model: Model, corpus: Corpus, settings: EncodeSettings) -> str:
    """Equal exactly when two encodings may share a folder."""
    return fingerprint_of(_identity(model, corpus, settings))


def encode_corpus(
    model: Model, corpus: Corpus, out: Path, settings: EncodeSettings, process: Process | None = None
) -> int:
    """Write this process's missing shards into `out` and give the number of texts embedded now.

    A shard whose checksum fails is done again. Raises DataError when `out` was begun with another model, corpus or
    setting; what it holds stays untouched.
    """
    process = process or Process()
    identity = _identity(model, corpus, settings)
    _claim(out, identity)
    shards = _shard_rows(len(corpus), settings.shard_size)
    mine = range(process.rank, len(shards), process.world_size)
    missing = [k for k in mine if not _is_whole(out, k)]
    if missing:
        (out / "manifest.json").unlink(missing_ok=True)
        _encode_shards(model.load(), corpus, out, settings, {k: shards[k] for k in missing}, process)
    _write_manifest(out, identity, len(shards), model)
    return sum(len(shards[k]) for k in missing)


def open_embeddings(folder: Path, *, wait: bool = False) -> Embeddings:
    """A finished embedding folder; with `wait`, once the other processes have finished it.

    Raises DataError when it is not finished.
    """
    path = folder / "manifest.json"
    while wait and not path.is_file():
        time.sleep(0.2)
    if not path.is_file():
        raise DataError(
            f"{folder} holds no finished encoding",
            expected="a manifest.json",
            mend="run `largede encode` with the same settings again: it goes on where it stopped",
        )
    manifest = read_json_object(path)
    settings = manifest["settings"]
    shards = tuple(Shard(**shard) for shard in manifest["shards"])
    return Embeddings(
        folder, manifest["fingerprint"], settings["model"], settings["corpus"], manifest["similarity"], shards
    )


def read_shards(embeddings: Embeddings) -> Iterator[tuple[list[str], np.ndarray]]:
    """The ids and float32 vectors of one shard after the other. Raises DataError when one is not what was written."""
    for shard in embeddings.shards:
        vectors_path, ids_path = (embeddings.folder / f"{shard.name}.{end}" for end in ("npy", "ids"))
        if not _matches(vectors_path, shard.vectors_sha256) or not _matches(ids_path, shard.ids_sha256):
            raise DataError(
                f"{shard.name} of {embeddings.folder} is missing or damaged",
                expected="the checksums of manifest.json",
                mend="run the encoding again: only this shard will be redone",
            )
        vectors = np.load(vectors_path, allow_pickle=False).astype(np.float32, copy=False)
        yield ids_path.read_text(encoding="utf-8").splitlines(), vectors


def _identity(model: Model, corpus: Corpus, settings: EncodeSettings) -> dict[str, object]:
    return {"model": model.fingerprint, "corpus": corpus.fingerprint, "documents": len(corpus), **asdict(settings)}


def _claim(out: Path, identity: dict[str, object]) -> None:
    """Mark the folder as this encoding's, or find that it is another's. Every process may do it: all write the same."""
    path = out / "settings.json"
    if not path.is_file():
        if (out / "manifest.json").exists() or any(out.glob("shard-*.npy")):
            raise DataError(
                f"{out} holds embeddings without settings.json",
                expected="an empty folder or a whole one",
                mend="choose another --out, or remove this one",
            )
        write_json(path, identity)
    found = read_json_object(path)
    different = sorted(key for key in identity if found.get(key) != identity[key])
    if different:
        key = different[0]
        raise DataError(
            f"{out} was begun with another {', '.join(different)} ({key} {found.get(key)})",
            expected=f"{key} {identity[key]}",
            mend="choose another --out, or remove this one",
        )


def _shard_rows(documents: int, shard_size: int) -> list[range]:
    if shard_size < 1:
        raise DataError(f"a shard size of {shard_size}", expected="at least 1 document", mend="change --shard-size")
    count = math.ceil(documents / shard_size)
    return [range(k * shard_size, min((k + 1) * shard_size, documents)) for k in range(count)]


def _name(k: int) -> str:
    return f"shard-{k:05d}"


def _is_whole(out: Path, k: int) -> bool:
    try:
        shard = Shard(**json.loads((out / f"{_name(k)}.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return False
    vectors, ids = out / f"{shard.name}.npy", out / f"{shard.name}.ids"
    return _matches(vectors, shard.vectors_sha256) and _matches(ids, shard.ids_sha256)


def _matches(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _encode_shards(
    encoder: TextEncoder, corpus: Corpus, out: Path, settings: EncodeSettings, todo: dict[int, range], process: Process
) -> None:
    prefix = f"rank {process.rank}: " if process.world_size > 1 else ""
    progress = Progress(sum(map(len, todo.values())), f"{settings.side}s", prefix=prefix)
    for k, rows in todo.items():
        for stale in out.glob(f".{_name(k)}.*.partial"):
            stale.unlink(missing_ok=True)
        vectors = _embed(encoder, corpus, settings, rows, progress)
        _write_shard(out, _name(k), corpus.ids[rows.start : rows.stop], vectors)


def _embed(
    encoder: TextEncoder, corpus: Corpus, settings: EncodeSettings, rows: range, progress: Progress
) -> np.ndarray:
    """Vectors (len(rows), dimension) in the stored dtype."""
    vectors = np.empty((len(rows), encoder.dimension), dtype=settings.dtype)
    for first in range(rows.start, rows.stop, _WINDOW):
        last = min(first + _WINDOW, rows.stop)
        texts = [document.contents for document in corpus.documents(first, last)]
        window = embed_checked(encoder, texts, settings.side, settings.max_tokens)
        vectors[first - rows.start : last - rows.start] = window
        progress.add(len(texts))
    return vectors


def _write_shard(out: Path, name: str, ids: tuple[str, ...], vectors: np.ndarray) -> None:
    vectors_path, ids_path = out / f"{name}.npy", out / f"{name}.ids"
    with writing(vectors_path) as stream:
        np.save(stream, vectors, allow_pickle=False)
    with writing(ids_path) as stream:
        stream.write("".join(f"{id_}\n" for id_ in ids).encode())
    shard = Shard(name, len(ids), vectors.shape[1], sha256_file(vectors_path), sha256_file(ids_path))
    write_json(out / f"{name}.json", asdict(shard))


def _write_manifest(out: Path, identity: dict[str, object], count: int, model: Model) -> None:
    """Write the manifest if every shard has its mark. Two processes that both see the last one write the same bytes."""
    marks = [out / f"{_name(k)}.json" for k in range(count)]
    if (out / "manifest.json").is_file() or not all(mark.is_file() for mark in marks):
        return
    shards = [read_json_object(mark) for mark in marks]
    manifest = {
        "fingerprint": fingerprint_of(identity),
        "settings": identity,
        "model_name": model.name,
        "similarity": model.load().similarity,
        "shards": shards,
    }
    write_json(out / "manifest.json", manifest)
