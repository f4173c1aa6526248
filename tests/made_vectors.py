"""Made vectors as a finished embedding folder: no corpus, no model."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from largede.files import fingerprint_of, sha256_file, write_json, writing
from largede.retrieval.encode import Embeddings, Shard, open_embeddings


def write_embeddings(
    folder: Path, table: np.ndarray, edges: Sequence[int] = (), ids: Sequence[str] | None = None
) -> Embeddings:
    """Rows of `table`, cut into shards at `edges`; ids d0, d1, ... unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ids or [f"d{row}" for row in range(len(table))]
    bounds = [0, *edges, len(table)]
    shards = []
    for k, (first, last) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        name = f"shard-{k:05d}"
        with writing(folder / f"{name}.npy") as stream:
            np.save(stream, table[first:last])
        (folder / f"{name}.ids").write_text("".join(f"{id_}\n" for id_ in names[first:last]), encoding="utf-8")
        hashes = [sha256_file(folder / f"{name}.{end}") for end in ("npy", "ids")]
        shards.append(asdict(Shard(name, last - first, table.shape[1], *hashes)))
    settings = {"model": "made", "corpus": fingerprint_of(list(names)), "documents": len(table), "side": "passage"}
    settings |= {"max_tokens": 512, "shard_size": 0, "dtype": str(table.dtype)}
    write_json(folder / "settings.json", settings)
    manifest = {"fingerprint": fingerprint_of(settings), "settings": settings, "model_name": "made"}
    write_json(folder / "manifest.json", manifest | {"similarity": "dot", "shards": shards})
    return open_embeddings(folder)


def clustered(rows: int, dimension: int, clusters: int, seed: int = 0) -> np.ndarray:
    """Float32 vectors of length 1 around random centres."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dimension), dtype=np.float32)
    table = centres[rng.integers(0, clusters, rows)] + 0.7 * rng.standard_normal((rows, dimension), dtype=np.float32)
    return table / np.linalg.norm(table, axis=1, keepdims=True)
