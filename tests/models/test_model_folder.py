"""Exported folders: sentence-transformers gives the same embeddings, and they read back as they were written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_world import MadeWorld

from largede.config.recipe import ModelConfig
from largede.errors import ModelError
from largede.models.build import build_dual_encoder, load_tokenizer, save_tokenizer
from largede.models.folder import FolderSettings, write_model_folder
from largede.models.text_encoder import load_text_encoder
from largede.streams.pieces import WithSentencePiece, encoder_of

TEXTS = ["baba lulu", "a much longer text " * 9, "x", "bone dama kilo mura " * 30, ""]


def written(world: MadeWorld, out: Path, prefix: str = "", **settings: Any) -> Path:
    model = build_dual_encoder(ModelConfig(backbone="smoke", **settings))
    folder = FolderSettings(settings.get("similarity", "cosine"), 64, prefix, prefix and "passage: ", "# a card\n")
    write_model_folder(model, load_tokenizer(world.vocabulary), folder, out)
    return out


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_sentence_transformers_gives_the_same_embeddings(similarity: str, world: MadeWorld, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = written(world, tmp_path / "model", "query: ", similarity=similarity)
    theirs = SentenceTransformer(str(folder), device="cpu")
    ours = load_text_encoder(folder, device="cpu")
    assert (ours.dimension, ours.similarity) == (768, similarity)
    assert theirs.similarity_fn_name == similarity
    for side, encode in (("query", theirs.encode_query), ("passage", theirs.encode_document)):
        expected = encode(TEXTS)
        found = ours.embed(TEXTS, side, 64)  # type: ignore[arg-type]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max() + 2e-6)


def test_an_exported_folder_keeps_the_sentencepiece_file_and_reads_texts_by_it(
    world: MadeWorld, tmp_path: Path
) -> None:
    folder = written(world, tmp_path / "model")
    again = tmp_path / "again"
    save_tokenizer(load_tokenizer(folder), again)
    for kept in (folder, again):
        assert (kept / "spiece.model").read_bytes() == (Path(world.vocabulary) / "spiece.model").read_bytes()
        assert isinstance(encoder_of(load_tokenizer(kept)), WithSentencePiece)
    save_tokenizer(load_tokenizer(again), again)
    assert isinstance(encoder_of(load_tokenizer(again)), WithSentencePiece)


def test_two_towers_become_two_folders(world: MadeWorld, tmp_path: Path) -> None:
    folder = written(world, tmp_path / "model", layout="ade")
    encoder = load_text_encoder(folder, device="cpu")
    query, passage = encoder.embed(TEXTS, "query", 64), encoder.embed(TEXTS, "passage", 64)
    assert np.abs(query - passage).max() > 1e-2
    model = build_dual_encoder(ModelConfig(backbone="smoke", layout="ade"))
    assert torch.equal(encoder.towers["passage"].head[0].linear.weight, model.passage_tower.projection.weight)  # type: ignore[union-attr]


def test_order_and_neighbours_do_not_matter(world: MadeWorld, tmp_path: Path) -> None:
    encoder = load_text_encoder(written(world, tmp_path / "model"), device="cpu")
    together = encoder.embed(TEXTS, "query", 64)
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(encoder.embed([text], "query", 64)[0], together[i], atol=1e-6)
    assert encoder.embed([], "query", 64).shape == (0, 768)


def test_an_existing_folder_is_left_alone(world: MadeWorld, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("keep")
    with pytest.raises(ModelError, match="exists"):
        written(world, tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("modules.json", "[", "cannot be read"),
        ("1_Pooling/config.json", json.dumps({"pooling_mode_max_tokens": True}), "pools by max_tokens"),
        ("2_Dense/config.json", json.dumps({"bias": True, "in_features": 1, "out_features": 1}), "width 1"),
        ("largede.json", json.dumps({"towers": {"query": "../.."}}), "names the towers"),
        ("2_Dense/model.safetensors", "no tensors", "cannot be read"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(
    file: str, change: str, said: str, world: MadeWorld, tmp_path: Path
) -> None:
    folder = written(world, tmp_path / "model")
    (folder / file).write_text(change)
    with pytest.raises(ModelError, match=said):
        load_text_encoder(folder, device="cpu")


def test_a_pickled_model_is_not_loaded(world: MadeWorld, tmp_path: Path) -> None:
    folder = written(world, tmp_path / "model")
    (folder / "2_Dense" / "model.safetensors").unlink()
    torch.save({"linear.weight": torch.zeros(768, 128)}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_text_encoder(folder, device="cpu")
