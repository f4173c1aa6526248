"""Encoding that is killed at any moment and started again ends with the bytes of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from beir_folder import write_collection
from hash_encoder import hash_model
from made_world import MadeWorld

from largede.config.recipe import ModelConfig
from largede.files import sha256_file
from largede.models.build import build_dual_encoder, load_tokenizer
from largede.models.folder import FolderSettings, write_model_folder
from largede.retrieval.corpus import open_corpus
from largede.retrieval.encode import EncodeSettings, encode_corpus, open_embeddings, read_shards
from largede.retrieval.processes import Process

KILLS = 10
DOCUMENTS = 320
SHARD = 8

HASHED = """
import sys, time
from pathlib import Path
from hash_encoder import HashEncoder
from largede.retrieval.corpus import open_corpus
from largede.retrieval.encode import EncodeSettings, encode_corpus
from largede.retrieval.encoder import Model

class Counted(HashEncoder):
    def embed(self, texts, side, max_tokens):
        time.sleep(0.02)
        vectors = super().embed(texts, side, max_tokens)
        with open(sys.argv[3], "a") as log:
            log.write(f"{len(texts)}\\n")
        return vectors

corpus = open_corpus(Path(sys.argv[1]))
Path(sys.argv[3] + ".ready").touch()
encode_corpus(Model("hash", "hash", Counted), corpus, Path(sys.argv[2]), EncodeSettings(shard_size=8))
"""

REAL = """
import sys, time
from pathlib import Path
from largede.models.text_encoder import FolderEncoder
plain = FolderEncoder.embed_rows
def counted(self, rows, side, told):
    time.sleep(0.04)
    vectors = plain(self, rows, side, told)
    with open(sys.argv[3], "a") as log:
        log.write(f"{len(rows)}\\n")
    return vectors
FolderEncoder.embed_rows = counted
from largede.cli import main
Path(sys.argv[3] + ".ready").touch()
sys.exit(main(["encode", "--model", sys.argv[4], "--corpus", sys.argv[1], "--out", sys.argv[2], "--shard-size", "8"]))
"""


def start(script: str, *words: str | Path) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(p for p in sys.path if p)
    return subprocess.Popen([sys.executable, "-c", script, *map(str, words)], env=os.environ | {"PYTHONPATH": paths})


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()}


def killed_and_finished(script: str, tmp_path: Path, longest_s: float, *words: str | Path) -> None:
    """Run `script` undisturbed, and again into another folder, killed ten times before it may finish; compare."""
    data = write_collection(tmp_path / "data", DOCUMENTS)
    assert start(script, data, tmp_path / "whole", tmp_path / "whole.log", *words).wait() == 0
    out, log, ready = tmp_path / "out", tmp_path / "out.log", tmp_path / "out.log.ready"
    chance = random.Random(3)
    for _ in range(KILLS):
        ready.unlink(missing_ok=True)
        child = start(script, data, out, log, *words)
        while not ready.exists():
            assert child.poll() is None
            time.sleep(0.001)
        time.sleep(chance.uniform(0, longest_s))
        assert child.poll() is None, "it finished before it was killed often enough"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert start(script, data, out, log, *words).wait() == 0
    assert bytes_of(out) == bytes_of(tmp_path / "whole")
    counts = [sum(map(int, path.read_text().split())) for path in (tmp_path / "whole.log", log)]
    assert counts[0] == DOCUMENTS
    # What a kill can waste is the shard that was in hand.
    assert DOCUMENTS <= counts[1] <= DOCUMENTS + KILLS * SHARD
    ids = [id_ for part, _ in read_shards(open_embeddings(out)) for id_ in part]
    assert ids == [f"d{i:03d}" for i in range(DOCUMENTS)]


def test_killed_ten_times_at_random_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    killed_and_finished(HASHED, tmp_path, 0.12)


@pytest.mark.exhaustive
def test_the_command_killed_ten_times_at_random_ends_with_the_same_bytes(world: MadeWorld, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(world.vocabulary)
    settings = FolderSettings("cosine", 64, "", "", "# a card\n")
    write_model_folder(build_dual_encoder(ModelConfig(backbone="smoke")), tokenizer, settings, tmp_path / "model")
    killed_and_finished(REAL, tmp_path, 1.5, tmp_path / "model")


def test_other_numbers_of_processes_may_go_on(tmp_path: Path) -> None:
    corpus = open_corpus(write_collection(tmp_path / "data", 2100))
    parts = [Process(1, 3), Process(0, 2), Process(1, 2)]
    out, settings = tmp_path / "out", EncodeSettings()
    assert [encode_corpus(hash_model(), corpus, out, settings, part) for part in parts] == [512 + 52, 512 + 512, 512]
    encode_corpus(hash_model(), corpus, tmp_path / "alone", settings)
    assert bytes_of(out) == bytes_of(tmp_path / "alone")
