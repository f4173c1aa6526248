"""The folder for Pyserini: FAISS's own bytes, written a shard at a time, and a run that equals ours."""

import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from beir_folder import write_collection
from hash_encoder import HashEncoder, hash_model

from largede.errors import DataError
from largede.retrieval import encode, pyserini_folder
from largede.retrieval.corpus import open_corpus, open_queries
from largede.retrieval.encode import Embeddings, EncodeSettings, encode_corpus, open_embeddings, read_shards
from largede.retrieval.java import find_java_home
from largede.retrieval.pyserini_folder import write_pyserini_folder
from largede.retrieval.runs import read_run
from largede.retrieval.search import search


def made_embeddings(tmp_path: Path, dtype: str = "float32") -> Embeddings:
    corpus = open_corpus(write_collection(tmp_path / "data", 330))
    settings = EncodeSettings(shard_size=100, dtype=dtype)  # type: ignore[arg-type]
    encode_corpus(hash_model(), corpus, tmp_path / dtype, settings)
    return open_embeddings(tmp_path / dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_index_is_what_faiss_itself_writes(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_LARGEST_SHARD", 200)  # read in two parts
    embeddings = made_embeddings(tmp_path, dtype)
    parts, told = list(read_shards(embeddings)), []
    assert [len(ids) for ids, _ in parts] == [200, 130]
    assert write_pyserini_folder(embeddings, tmp_path / "out", told.append)
    assert told == [200, 130]
    whole = faiss.IndexFlatIP(embeddings.dimension)
    for _, vectors in parts:
        whole.add(vectors)
    faiss.write_index(whole, str(tmp_path / "theirs"))
    assert (tmp_path / "out" / "index").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "out" / "docid").read_text().splitlines() == [id_ for ids, _ in parts for id_ in ids]
    assert not write_pyserini_folder(embeddings, tmp_path / "out")


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    embeddings = made_embeddings(tmp_path)
    write_pyserini_folder(made_embeddings(tmp_path, "float16"), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(DataError, match="does not hold"):
        write_pyserini_folder(embeddings, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_error_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = made_embeddings(tmp_path)
    (embeddings.folder / "shard-00003.npy").write_bytes(b"damaged")
    with pytest.raises(DataError, match="missing or damaged"):
        write_pyserini_folder(embeddings, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "float32"]
    monkeypatch.setattr(pyserini_folder, "_packed_header", lambda rows, dimension: b"another form")
    with pytest.raises(pyserini_folder.MachineError, match="in a form that largede does not know"):
        write_pyserini_folder(embeddings, tmp_path / "out")


@pytest.mark.slow
def test_pyseris_run_equals_ours(tmp_path: Path) -> None:
    embeddings = made_embeddings(tmp_path)
    write_pyserini_folder(embeddings, tmp_path / "out")
    queries = open_queries(tmp_path / "data" / "queries.jsonl")
    vectors = HashEncoder().embed(list(queries.values()), "query", 64)
    np.save(tmp_path / "queries.npy", vectors)
    script = Path(__file__).with_name("pyserini_search.py")
    words = [sys.executable, str(script), str(tmp_path / "out"), str(tmp_path / "queries.npy"), "50"]
    environment = os.environ | {"JAVA_HOME": str(find_java_home())}
    subprocess.run([*words, str(tmp_path / "run")], check=True, capture_output=True, env=environment)
    theirs = read_run(tmp_path / "run")
    ours = search(embeddings, list(theirs), vectors, 50)
    assert list(ours) == list(theirs) == [f"q{i}" for i in range(len(queries))]
    for query, ranking in ours.items():
        np.testing.assert_allclose(ranking.scores, theirs[query].scores, atol=1e-6)
        # Documents of one score may stand in another order, and at the end others of that score may stand.
        surely = [id_ for id_, score in ranking.scored().items() if score > ranking.scores[-1] + 1e-6]
        assert set(surely) <= set(theirs[query].ids)
        alone = np.flatnonzero(np.diff(ranking.scores, prepend=9, append=-9)[:-1] < -1e-6)
        alone = [i for i in alone if np.diff(ranking.scores, append=-9)[i] < -1e-6]
        assert alone
        assert [ranking.ids[i] for i in alone] == [theirs[query].ids[i] for i in alone]
