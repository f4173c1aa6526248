"""Encoding is resumable at every point, refuses to mix, and loses nothing."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from beir_folder import write_collection
from hash_encoder import HashEncoder, hash_model

from largede.errors import DataError, MachineError, ModelError
from largede.files import writing
from largede.retrieval.corpus import open_corpus
from largede.retrieval.encode import EncodeSettings, encode_corpus, open_embeddings, read_shards
from largede.retrieval.encoder import Model, embed_checked
from largede.retrieval.processes import Process

SETTINGS = EncodeSettings(shard_size=50)

# Encodes slowly, so that there is a moment to kill it in the middle.
SLOW = """
import sys, time
from pathlib import Path
from hash_encoder import HashEncoder
from largede.retrieval.corpus import open_corpus
from largede.retrieval.encode import EncodeSettings, encode_corpus
from largede.retrieval.encoder import Model
class Slow(HashEncoder):
    def embed(self, texts, side, max_tokens):
        time.sleep(0.5)
        return super().embed(texts, side, max_tokens)
encode_corpus(Model("hash", "hash-64", lambda: Slow()), open_corpus(Path(sys.argv[1])), Path(sys.argv[2]),
              EncodeSettings(shard_size=50))
"""


def vectors_of(folder: Path) -> tuple[list[str], np.ndarray]:
    shards = list(read_shards(open_embeddings(folder)))
    return [id_ for ids, _ in shards for id_ in ids], np.concatenate([vectors for _, vectors in shards])


def test_every_text_has_its_row(tmp_path: Path) -> None:
    corpus = open_corpus(write_collection(tmp_path / "data"))
    assert encode_corpus(hash_model(), corpus, tmp_path / "out", SETTINGS) == 160
    ids, vectors = vectors_of(tmp_path / "out")
    expected = HashEncoder().embed([d.contents for d in corpus.documents()], "passage", 512)
    assert ids == list(corpus.ids)
    np.testing.assert_array_equal(vectors, expected)
    assert encode_corpus(hash_model(), corpus, tmp_path / "out", SETTINGS) == 0


def test_killed_between_shards_it_goes_on_with_the_missing_ones(tmp_path: Path) -> None:
    data, out = write_collection(tmp_path / "data"), tmp_path / "out"
    paths = os.pathsep.join(p for p in sys.path if p)
    child = subprocess.Popen([sys.executable, "-c", SLOW, str(data), str(out)], env=os.environ | {"PYTHONPATH": paths})
    while not (out / "shard-00001.json").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with pytest.raises(DataError, match="holds no finished encoding"):
        open_embeddings(out)
    kept = (out / "shard-00000.npy").stat().st_mtime_ns
    redone = encode_corpus(hash_model(), open_corpus(data), out, SETTINGS)
    assert 10 <= redone <= 110
    assert (out / "shard-00000.npy").stat().st_mtime_ns == kept
    encode_corpus(hash_model(), open_corpus(data), tmp_path / "whole", SETTINGS)
    np.testing.assert_array_equal(vectors_of(out)[1], vectors_of(tmp_path / "whole")[1])
    assert not list(out.glob(".*partial"))


def test_a_damaged_shard_is_refused_and_then_redone_alone(tmp_path: Path) -> None:
    corpus, out = open_corpus(write_collection(tmp_path / "data")), tmp_path / "out"
    encode_corpus(hash_model(), corpus, out, SETTINGS)
    before = vectors_of(out)[1]
    damaged = bytearray((out / "shard-00002.npy").read_bytes())
    damaged[-1] ^= 1
    (out / "shard-00002.npy").write_bytes(damaged)
    with pytest.raises(DataError, match="shard-00002 .* missing or damaged"):
        vectors_of(out)
    assert encode_corpus(hash_model(), corpus, out, SETTINGS) == 50
    np.testing.assert_array_equal(vectors_of(out)[1], before)


@pytest.mark.parametrize(
    ("model", "settings", "word"),
    [
        (hash_model("other"), SETTINGS, "another model"),
        (hash_model(), EncodeSettings(shard_size=60), "another shard_size"),
        (hash_model(), EncodeSettings(shard_size=50, max_tokens=3), "another max_tokens"),
    ],
)
def test_nothing_is_mixed_into_another_encoding(
    tmp_path: Path, model: Model, settings: EncodeSettings, word: str
) -> None:
    corpus, out = open_corpus(write_collection(tmp_path / "data")), tmp_path / "out"
    encode_corpus(hash_model(), corpus, out, SETTINGS)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match=word):
        encode_corpus(model, corpus, out, settings)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_processes_share_the_shards_and_the_last_one_finishes(tmp_path: Path) -> None:
    corpus = open_corpus(write_collection(tmp_path / "data"))
    counts = []
    for rank in (2, 0, 1):
        assert not (tmp_path / "out" / "manifest.json").exists()
        counts.append(encode_corpus(hash_model(), corpus, tmp_path / "out", SETTINGS, Process(rank, 3)))
    assert counts == [50, 50 + 10, 50]
    encode_corpus(hash_model(), corpus, tmp_path / "alone", SETTINGS)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == (tmp_path / "alone" / "manifest.json").read_bytes()


def test_half_precision_is_close(tmp_path: Path) -> None:
    corpus = open_corpus(write_collection(tmp_path / "data"))
    encode_corpus(hash_model(), corpus, tmp_path / "full", SETTINGS)
    encode_corpus(hash_model(), corpus, tmp_path / "half", EncodeSettings(shard_size=50, dtype="float16"))
    full, half = vectors_of(tmp_path / "full")[1], vectors_of(tmp_path / "half")[1]
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 1e-3


def test_vectors_that_are_not_finite_are_refused_and_leave_no_shard(tmp_path: Path) -> None:
    class Broken(HashEncoder):
        def embed(self, texts, side, max_tokens):  # type: ignore[no-untyped-def]
            return super().embed(texts, side, max_tokens) * np.float32("nan")

    corpus = open_corpus(write_collection(tmp_path / "data"))
    with pytest.raises(ModelError, match="not finite for a passage"):
        encode_corpus(Model("broken", "broken", lambda: Broken()), corpus, tmp_path / "out", SETTINGS)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["settings.json"]
    with pytest.raises(ModelError, match="not finite"):
        embed_checked(Broken(), ["a"], "query", 8)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(MachineError, match="no room left to write"), writing(path) as stream:
            stream.write(b"x" * 5000)
            stream.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
