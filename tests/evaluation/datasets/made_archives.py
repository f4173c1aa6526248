"""Small collections in BEIR format as bytes: files, and zip archives of them."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping

from largede.evaluation.datasets.catalogue import RemoteFile
from largede.evaluation.datasets.download import Patience

HASTY = Patience((0.005, 0.005, 0.005), (0.005,), 5.0)


def beir_files(prefix: str = "", splits: tuple[str, ...] = ("test",)) -> dict[str, bytes]:
    corpus = [{"_id": f"d{i}", "title": f"title {i}", "text": f"text {i} of {prefix}"} for i in range(4)]
    queries = [{"_id": f"q{i}", "text": f"question {i}"} for i in range(2)]
    qrels = b"query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td2\t2\n"
    files = {f"{prefix}corpus.jsonl": lines(corpus), f"{prefix}queries.jsonl": lines(queries)}
    return files | {f"{prefix}qrels/{split}.tsv": qrels for split in splits}


def lines(records: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def zipped(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def remote(address: str, data: bytes | None = None) -> RemoteFile:
    """A published file; with `data`, so are its size and MD5."""
    if data is None:
        return RemoteFile(address)
    return RemoteFile(address, len(data), hashlib.md5(data).hexdigest())
