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
from largede.retrieval.encode import (
    EncodeSettings,
    as_float32,
    as_stored,
    encode_corpus,
    open_embeddings,
    read_ids,
    read_shards,
    read_stored,
    shard_size_for,
)
from largede.retrieval.encoder import Model, embed_checked, embed_windows
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


def test_a_manifest_of_another_shape_is_one_message_and_written_again(tmp_path: Path) -> None:
    corpus, out = open_corpus(write_collection(tmp_path / "data")), tmp_path / "out"
    encode_corpus(hash_model(), corpus, out, SETTINGS)
    before = (out / "manifest.json").read_bytes()
    for damaged in ("{}", '{"settings": 1}'):
        (out / "manifest.json").write_text(damaged)
        with pytest.raises(DataError, match=r"(?s)manifest.json cannot be read .*remove that file"):
            open_embeddings(out)
    (out / "manifest.json").unlink()
    assert encode_corpus(hash_model(), corpus, out, SETTINGS) == 0
    assert (out / "manifest.json").read_bytes() == before


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


def test_bfloat16_is_stored_as_torch_would_round_it(tmp_path: Path) -> None:
    import torch

    generator = np.random.default_rng(0)
    vectors = np.concatenate(
        [
            generator.normal(size=(50, 64)),
            [[0.0, -0.0, 1e-40, -3e38, 1 + 2**-8, 1 + 3 * 2**-8] * 8] + [[2.0**-126] * 48],
        ],
        axis=None,
    ).astype(np.float32)
    stored = as_stored(vectors, "bfloat16")
    assert stored.dtype == np.uint16
    expected = torch.from_numpy(vectors).to(torch.bfloat16)
    np.testing.assert_array_equal(as_float32(stored, "bfloat16"), expected.float().numpy())
    corpus = open_corpus(write_collection(tmp_path / "data"))
    encode_corpus(hash_model(), corpus, tmp_path / "full", SETTINGS)
    encode_corpus(hash_model(), corpus, tmp_path / "out", EncodeSettings(shard_size=50, dtype="bfloat16"))
    embeddings = open_embeddings(tmp_path / "out")
    assert embeddings.dtype == "bfloat16"
    assert (tmp_path / "out" / "shard-00000.npy").stat().st_size < 50 * 64 * 2 + 200
    full, half = vectors_of(tmp_path / "full")[1], vectors_of(tmp_path / "out")[1]
    np.testing.assert_array_equal(half, torch.from_numpy(full).to(torch.bfloat16).float().numpy())


def test_numbers_too_large_for_float16_are_refused(tmp_path: Path) -> None:
    class Large(HashEncoder):
        def embed(self, texts, side, max_tokens):  # type: ignore[no-untyped-def]
            return super().embed(texts, side, max_tokens) * np.float32(1e6)

    corpus = open_corpus(write_collection(tmp_path / "data"))
    settings = EncodeSettings(shard_size=50, dtype="float16")
    with pytest.raises(ModelError, match="an embedding with numbers up to"):
        encode_corpus(Model("large", "large", Large), corpus, tmp_path / "out", settings)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["settings.json"]


@pytest.mark.parametrize(
    ("documents", "size"), [(1, 512), (3_633, 512), (57_638, 901), (8_841_823, 50_000), (21_015_324, 50_000)]
)
def test_small_corpora_have_small_shards(documents: int, size: int) -> None:
    assert shard_size_for(documents) == size


def test_small_shards_are_read_together_and_one_at_a_time_in_what_they_hold(tmp_path: Path) -> None:
    corpus, out = open_corpus(write_collection(tmp_path / "data")), tmp_path / "out"
    encode_corpus(hash_model(), corpus, out, SETTINGS)
    embeddings = open_embeddings(out)
    ((ids, vectors),) = read_shards(embeddings)
    assert ids == list(corpus.ids)
    parts = [(read_ids(embeddings, shard), read_stored(embeddings, shard)) for shard in embeddings.shards]
    assert [len(part) for part, _ in parts] == [50, 50, 50, 10]
    np.testing.assert_array_equal(np.concatenate([stored for _, stored in parts]), vectors)


class Windowed(HashEncoder):
    """Its first half runs in a thread ahead of the second, which waits until it has, for `windows` in all."""

    prepares_ahead = True

    def __init__(self, windows: int = 1) -> None:
        super().__init__()
        self.windows = windows
        self.prepared: list[int] = []
        self.ahead: list[int] = []

    def prepare(self, texts, side, max_tokens):  # type: ignore[no-untyped-def]
        if "bad" in texts:
            raise DataError("a bad text", expected="good ones", mend="remove it")
        self.prepared.append(len(texts))
        return list(texts), max_tokens

    def embed_rows(self, rows, side, told):  # type: ignore[no-untyped-def]
        wanted, deadline = min(len(self.ahead) + 2, self.windows), time.monotonic() + 20
        while len(self.prepared) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        self.ahead.append(len(self.prepared))
        told(len(rows[0]))
        return self.embed(rows[0], side, rows[1])


def test_the_next_window_is_prepared_while_one_is_embedded() -> None:
    encoder, done = Windowed(3), []
    windows = [["a"], ["b", "c"], ["d", "e", "f"]]
    found = list(embed_windows(encoder, windows, "passage", 8, done.append))
    assert encoder.prepared == [1, 2, 3]
    assert encoder.ahead == [2, 3, 3]
    assert done == [1, 2, 3]
    for window, vectors in zip(windows, found, strict=True):
        np.testing.assert_array_equal(vectors, HashEncoder().embed(window, "passage", 8))


def test_an_error_of_the_thread_is_raised_where_its_window_is_asked_for() -> None:
    stream = embed_windows(Windowed(), [["a"], ["bad"]], "passage", 8)
    assert len(next(stream)) == 1
    with pytest.raises(DataError, match="a bad text"):
        next(stream)
