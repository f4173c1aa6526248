"""A corpus becomes a folder of embedding shards.

    settings.json      what the folder is for; written first, so that nothing else can be mixed in
    shard-00000.npy    (rows, dimension) in the stored dtype; bfloat16 as uint16, the upper halves of float32 numbers
    shard-00000.ids    the document id of each row
    shard-00000.json   rows and checksums; written last: a shard without it does not count
    manifest.json      settings and all shards; written by whichever process finds the last shard done

Shard k belongs to process k mod W. The processes meet in the folder alone: there is no collective, so none can time
out, and a run that was killed anywhere goes on with the shards that are missing.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from largede.arrays import save_array
from largede.errors import DataError, ModelError
from largede.files import damaged_file, fingerprint_of, read_json_object, sha256_file, write_json, writing
from largede.retrieval.corpus import Corpus
from largede.retrieval.encoder import Model, Side, TextEncoder, embed_windows
from largede.retrieval.processes import Process
from largede.retrieval.progress import Progress
from largede.waiting import wait_until

# Texts read, sorted by length and embedded at a time: large enough for even batches, small enough to hold. Of chunks of
# 16,384 tokens, 6.2 % are padding with 4,096 texts of log-uniform lengths from 8 to 512, and 2.0 % with 16,384.
_WINDOW = 16_384
_SMALLEST_SHARD = 512
_LARGEST_SHARD = 50_000
_ABOVE_FLOAT16 = 65_520.0
_SHARDS_WANTED = 64
"""Of a corpus that is neither small nor large: so many processes have work of their own."""


StoredDtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class EncodeSettings:
    """`shard_size` None: by the number of documents, see `shard_size_for`. `dtype` is that of the stored vectors."""

    side: Side = "passage"
    max_tokens: int = 512
    shard_size: int | None = None
    dtype: StoredDtype = "float32"


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
    dtype: StoredDtype = "float32"

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def dimension(self) -> int:
        return self.shards[0].dimension


def shard_size_for(documents: int) -> int:
    """Documents in a shard where none is asked for: small enough to share a small corpus among many processes.

    By the corpus alone, so that a run can go on with another number of processes.
    """
    return min(max(math.ceil(documents / _SHARDS_WANTED), _SMALLEST_SHARD), _LARGEST_SHARD)


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
    _check_claim(out, identity)
    shards = _shard_rows(len(corpus), _shard_size(corpus, settings))
    mine = range(process.rank, len(shards), process.world_size)
    missing = [k for k in mine if not _is_whole(out, k)]
    if missing:
        encoder = model.load()  # what cannot be loaded leaves no folder behind
        _claim(out, identity)
        (out / "manifest.json").unlink(missing_ok=True)
        _encode_shards(encoder, corpus, out, settings, {k: shards[k] for k in missing}, process)
    _write_manifest(out, identity, len(shards), model)
    return sum(len(shards[k]) for k in missing)


def open_embeddings(folder: Path, *, wait: bool = False) -> Embeddings:
    """A finished embedding folder; with `wait`, once the other processes have finished it.

    Raises DataError when it is not finished.
    """
    path = folder / "manifest.json"
    if wait:
        wait_until(path.is_file, f"the other processes' shards of {folder}")
    if not path.is_file():
        raise DataError(
            f"{folder} holds no finished encoding",
            expected="a manifest.json",
            mend="run `largede encode` with the same settings again: it goes on where it stopped",
        )
    manifest = read_json_object(path)
    try:
        settings = manifest["settings"]
        return Embeddings(
            folder,
            manifest["fingerprint"],
            settings["model"],
            settings["corpus"],
            manifest["similarity"],
            tuple(Shard(**shard) for shard in manifest["shards"]),
            settings["dtype"],
        )
    except (KeyError, TypeError) as error:
        raise damaged_file(path, f"no {error}", "remove that file: the same command writes it again") from error


def read_shards(embeddings: Embeddings) -> Iterator[tuple[list[str], np.ndarray]]:
    """Ids and float32 vectors of all rows in parts of one shard, or of several small ones that stand together.

    Raises DataError when a shard is not what was written.
    """
    for group in _grouped(embeddings.shards, _LARGEST_SHARD):
        ids: list[str] = []
        vector_ND = np.empty((sum(shard.rows for shard in group), embeddings.dimension), dtype=np.float32)
        for shard in group:
            first = len(ids)
            ids += read_ids(embeddings, shard)
            vector_ND[first : len(ids)] = as_float32(read_stored(embeddings, shard), embeddings.dtype)
        yield ids, vector_ND


def read_shard(embeddings: Embeddings, shard: Shard) -> tuple[list[str], np.ndarray]:
    """Ids and float32 vectors of one shard. Raises DataError when it is not what was written."""
    return read_ids(embeddings, shard), as_float32(read_stored(embeddings, shard), embeddings.dtype)


def read_ids(embeddings: Embeddings, shard: Shard) -> list[str]:
    """Raises DataError when they are not what was written."""
    return _checked(embeddings, shard, "ids", shard.ids_sha256).read_text(encoding="utf-8").splitlines()


def read_stored(embeddings: Embeddings, shard: Shard) -> np.ndarray:
    """Vectors (rows, dimension) as they are stored (`as_float32` makes numbers of bfloat16). Raises as `read_ids`."""
    stored: np.ndarray = np.load(_checked(embeddings, shard, "npy", shard.vectors_sha256), allow_pickle=False)
    return stored


def as_stored(vector_ND: np.ndarray, dtype: StoredDtype) -> np.ndarray:
    """Float32 in the stored dtype: nearest numbers, ties to even. numpy has no bfloat16: its bits come as uint16.

    Raises ModelError for numbers that are too large for float16.
    """
    if dtype == "bfloat16":
        bits_ND = np.ascontiguousarray(vector_ND, dtype=np.float32).view(np.uint32)
        return ((bits_ND + 0x7FFF + ((bits_ND >> 16) & 1)) >> 16).astype(np.uint16)
    if dtype == "float16" and np.abs(vector_ND).max(initial=0) >= _ABOVE_FLOAT16:
        raise ModelError(
            f"an embedding with numbers up to {np.abs(vector_ND).max():.3g}",
            expected="below 65,520, where float16 ends",
            mend="store the vectors as bfloat16 or float32",
        )
    return vector_ND.astype(dtype, copy=False)


def as_float32(stored_ND: np.ndarray, dtype: StoredDtype) -> np.ndarray:
    """The same numbers in float32."""
    if dtype == "bfloat16":
        return (stored_ND.astype(np.uint32) << 16).view(np.float32)
    return stored_ND.astype(np.float32, copy=False)


def _grouped(shards: tuple[Shard, ...], most_rows: int) -> Iterator[list[Shard]]:
    group: list[Shard] = []
    for shard in shards:
        if group and sum(one.rows for one in group) + shard.rows > most_rows:
            yield group
            group = []
        group.append(shard)
    yield group


def _checked(embeddings: Embeddings, shard: Shard, end: str, sha256: str) -> Path:
    path = embeddings.folder / f"{shard.name}.{end}"
    if not _matches(path, sha256):
        raise DataError(
            f"{shard.name} of {embeddings.folder} is missing or damaged",
            expected="the checksums of manifest.json",
            mend="run the encoding again: only this shard will be redone",
        )
    return path


def _shard_size(corpus: Corpus, settings: EncodeSettings) -> int:
    return shard_size_for(len(corpus)) if settings.shard_size is None else settings.shard_size


def _identity(model: Model, corpus: Corpus, settings: EncodeSettings) -> dict[str, object]:
    settled = replace(settings, shard_size=_shard_size(corpus, settings))
    return {"model": model.fingerprint, "corpus": corpus.fingerprint, "documents": len(corpus), **asdict(settled)}


def _claim(out: Path, identity: dict[str, object]) -> None:
    """Mark the folder as this encoding's, or find that it is another's. Every process may do it: all write the same."""
    if not (out / "settings.json").is_file():
        write_json(out / "settings.json", identity)
    _check_claim(out, identity)


def _check_claim(out: Path, identity: dict[str, object]) -> None:
    """Refuse a folder that is another encoding's, or nobody's."""
    path = out / "settings.json"
    if not path.is_file():
        if (out / "manifest.json").exists() or any(out.glob("shard-*.npy")):
            raise DataError(
                f"{out} holds embeddings without settings.json",
                expected="an empty folder or a whole one",
                mend="choose another --out, or remove this one",
            )
        return
    found = read_json_object(path, f"bring that file back from a copy, or remove {out} and encode again")
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
    windows = (_texts(corpus, window) for rows in todo.values() for window in _windows(rows))
    # One stream through all shards: the next shard's texts become tokens while this one is finished and written.
    embedded = embed_windows(encoder, windows, settings.side, settings.max_tokens, progress.add)
    for k, rows in todo.items():
        for stale in out.glob(f".{_name(k)}.*.partial"):
            stale.unlink(missing_ok=True)
        vectors = [as_stored(next(embedded), settings.dtype) for _ in _windows(rows)]
        _write_shard(out, _name(k), corpus.ids[rows.start : rows.stop], np.concatenate(vectors))


def _windows(rows: range) -> list[range]:
    return [rows[first : first + _WINDOW] for first in range(0, len(rows), _WINDOW)]


def _texts(corpus: Corpus, rows: range) -> list[str]:
    return [document.contents for document in corpus.documents(rows.start, rows.stop)]


def _write_shard(out: Path, name: str, ids: Sequence[str], vectors: np.ndarray) -> None:
    vectors_path, ids_path = out / f"{name}.npy", out / f"{name}.ids"
    save_array(vectors_path, vectors)
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
