"""Embedding shards as the folder that Pyserini's FaissSearcher reads.

    index           a FAISS IndexFlatIP of all vectors in float32
    docid           the document id of each row
    largede.json    what it was made from

FAISS writes an index that it holds whole. A flat index is a header and the vectors, so here it is written a shard at a
time. Source of the header: `write_index` in faiss/impl/index_write.cpp; it is compared with FAISS's own at run time.
"""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from largede.errors import DataError, MachineError
from largede.files import read_json_object, write_json, writing_folder
from largede.retrieval.encode import Embeddings, read_shards

_STAMP = "largede.json"


def write_pyserini_folder(embeddings: Embeddings, out: Path, told: Callable[[int], None] = lambda rows: None) -> bool:
    """Write `out`, whole or not at all, unless it holds these embeddings already; tell whether it was written now.

    `told` hears of the rows that are written. Raises DataError when `out` holds something else.
    """
    if (out / _STAMP).is_file() and read_json_object(out / _STAMP).get("embeddings") == embeddings.fingerprint:
        return False
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f"{out} exists and does not hold {embeddings.folder}",
            expected="a new or empty folder",
            mend="remove it, or name another",
        )
    for left in out.parent.glob(f".{out.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
    with writing_folder(out) as partial:
        with (partial / "index").open("wb") as index, (partial / "docid").open("w", encoding="utf-8") as docid:
            index.write(_flat_header(embeddings.rows, embeddings.dimension))
            for ids, vector_ND in read_shards(embeddings):
                index.write(vector_ND.astype("<f4", copy=False).data)
                docid.writelines(f"{id_}\n" for id_ in ids)
                told(len(ids))
        write_json(partial / _STAMP, {"embeddings": embeddings.fingerprint, "rows": embeddings.rows})
    return True


def _flat_header(rows: int, dimension: int) -> bytes:
    """What comes before the vectors of an IndexFlatIP. Raises MachineError when this FAISS writes it otherwise."""
    import faiss
    import numpy as np

    one = faiss.IndexFlatIP(dimension)
    one.add(np.zeros((1, dimension), dtype=np.float32))
    if faiss.serialize_index(one)[: -4 * dimension].tobytes() != _packed_header(1, dimension):
        raise MachineError(
            f"FAISS {faiss.__version__} writes flat indexes in a form that largede does not know",
            expected="the form of FAISS 1.7 to 1.15",
            mend="install such a version of FAISS",
        )
    return _packed_header(rows, dimension)


def _packed_header(rows: int, dimension: int) -> bytes:
    """Kind, width, rows, two numbers without use, is trained, metric (0: inner product), how many numbers follow."""
    unused = 1 << 20
    return struct.pack("<4siqqq?iQ", b"IxFI", dimension, rows, unused, unused, True, 0, rows * dimension)
