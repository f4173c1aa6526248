"""Published sentence-transformers folders: the same vectors as sentence-transformers gives, or one clear refusal."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beir_folder import write_collection
from published_folders import FAMILIES, PLACES, WORDS, change_json, write_published
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from largede.errors import ModelError
from largede.models.attention import DensePacking, FlexPacking
from largede.models.text_encoder import FolderEncoder, load_text_encoder
from largede.retrieval.corpus import open_corpus
from largede.retrieval.encode import EncodeSettings, encode_corpus
from largede.retrieval.encoder import open_model

TEXTS = ["engine harbour", "The violin, of a Glacier in an orchard " * 9, "x", " ".join(WORDS), "", "falcon"]
HEADS = {
    "nothing": list,
    "gtr": lambda: [modules.Dense(32, 24, bias=False, activation_function=torch.nn.Identity()), modules.Normalize()],
    "two layers": lambda: [modules.Dense(32, 48), modules.Dense(48, 16, activation_function=torch.nn.GELU())],
    "normalised before": lambda: [modules.Normalize(), modules.Dense(32, 8, activation_function=torch.nn.ReLU())],
    "residual": lambda: [modules.Dense(32, 32, use_residual=True), modules.Dense(32, 12, use_residual=True)],
}


def same_as_theirs(folder: Path) -> FolderEncoder:
    theirs = SentenceTransformer(str(folder), device="cpu")
    # RoBERTa's kin have two positions fewer than their tables have rows, which sentence-transformers does not see.
    theirs.max_seq_length = min(theirs.max_seq_length or PLACES, PLACES)
    ours = load_text_encoder(folder, device="cpu")
    cosine = theirs.similarity_fn_name == "cosine"
    for side, encode in (("query", theirs.encode_query), ("passage", theirs.encode_document)):
        expected = encode(TEXTS, normalize_embeddings=cosine)
        found = ours.embed(TEXTS, side, PLACES)  # type: ignore[arg-type]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert ours.similarity == theirs.similarity_fn_name
    assert ours.dimension == theirs.get_embedding_dimension()
    return ours


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_every_family_and_pooling_gives_the_same_vectors(family: str, mode: str, tmp_path: Path) -> None:
    same_as_theirs(write_published(tmp_path / "model", family, HEADS["gtr"](), mode))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_every_sequence_of_dense_and_normalize_gives_the_same_vectors(
    head: str, similarity: str, tmp_path: Path
) -> None:
    same_as_theirs(write_published(tmp_path / "model", "bert", HEADS[head](), similarity_fn_name=similarity))


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False, "pooling_mode_max_tokens": False}, {}),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, {}),
        ({}, {}),
        ({}, {"type": "sentence_transformers.models.Pooling"}),
    ],
)
def test_forms_of_older_versions_are_read(flags: dict[str, bool], changes: dict[str, str], tmp_path: Path) -> None:
    folder = write_published(tmp_path / "model", "bert", [modules.Normalize()])
    old = {"pooling_mode": None, "embedding_dimension": None, "word_embedding_dimension": 32}
    change_json(folder / "1_Pooling" / "config.json", **old, **flags)
    entries = json.loads((folder / "modules.json").read_text())
    entries[1] |= changes
    (folder / "modules.json").write_text(json.dumps(entries))
    change_json(folder / "config_sentence_transformers.json", similarity_fn_name=None, prompts=None)
    same_as_theirs(folder)


@pytest.mark.parametrize(
    ("prompts", "default"),
    [
        ({"query": "query : ", "document": "passage : "}, None),
        ({"mine": "the engine : "}, "mine"),
        ({"mine": "the engine : ", "query": "query : "}, "mine"),
        ({"mine": "the engine : "}, None),
    ],
)
def test_prompts_are_those_of_encode_query_and_encode_document(
    prompts: dict[str, str], default: str | None, tmp_path: Path
) -> None:
    folder = write_published(tmp_path / "model", "bert", [])
    change_json(folder / "config_sentence_transformers.json", prompts=prompts, default_prompt_name=default)
    same_as_theirs(folder)


@pytest.mark.parametrize("name", ["passage", "corpus"])
def test_other_names_for_the_prompt_of_passages_count_where_there_is_no_document(name: str, tmp_path: Path) -> None:
    folder = write_published(tmp_path / "model", "bert", [])
    change_json(folder / "config_sentence_transformers.json", prompts={name: "passage : "})
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, prompt_name=name, normalize_embeddings=True)
    found = load_text_encoder(folder, device="cpu").embed(TEXTS, "passage", 512)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_lower_casing_is_followed(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "model", "bert", [])
    before = load_text_encoder(folder, device="cpu").embed(["ENGINE"], "query", 64)
    change_json(folder / "sentence_bert_config.json", do_lower_case=True)
    ours = same_as_theirs(folder)
    assert np.abs(ours.embed(["ENGINE"], "query", 64) - before).max() > 1e-3
    np.testing.assert_array_equal(ours.embed(["ENGINE"], "query", 64), ours.embed(["engine"], "query", 64))


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "distilbert"])
def test_no_text_is_longer_than_the_table_of_positions(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = load_text_encoder(write_published(tmp_path / "model", family, []), device="cpu")
    long = ["engine " * 3 * PLACES]
    for _ in range(2):
        vector = encoder.embed(long, "passage", 512)
    np.testing.assert_allclose(vector, encoder.embed(long, "passage", PLACES), atol=1e-6)
    said = f"model reads at most {PLACES} tokens of a passage, not 512: longer ones are cut there\n"
    assert capsys.readouterr().err == said


def test_the_models_own_limit_holds_and_a_smaller_one_that_is_asked_for(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "model", "bert", [])
    change_json(folder / "sentence_bert_config.json", max_seq_length=12)
    change_json(folder / "tokenizer_config.json", model_max_length=12)
    ours = same_as_theirs(folder)
    assert ours.limits == {"query": 12, "passage": 12}
    assert len(ours.prepare(["engine " * 30], "query", 8).tokens) == 8


@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_packed_chunks_give_the_vectors_of_padded_ones(family: str, mode: str, tmp_path: Path) -> None:
    folder = write_published(tmp_path / "model", family, HEADS["gtr"](), mode)
    padded = load_text_encoder(folder, device="cpu", attention="padded").embed(TEXTS, "passage", 64)
    packed = load_text_encoder(folder, device="cpu", attention="packed")
    np.testing.assert_allclose(packed.embed(TEXTS, "passage", 64), padded, atol=2e-6)
    assert packed.towers["passage"].packing is DensePacking
    packed.towers["passage"].packing = FlexPacking  # uncompiled and forward only, as a CPU can
    np.testing.assert_allclose(packed.embed(TEXTS, "passage", 64), padded, atol=2e-6)
    packed.chunk_tokens = 16  # smaller than the longest text
    np.testing.assert_allclose(packed.embed(TEXTS, "passage", 64), padded, atol=2e-6)


def _modules(folder: Path, change: Any) -> None:
    entries = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(change(entries)))


def _retyped(kind: str, place: int = 0) -> Any:
    def change(folder: Path) -> None:
        _modules(folder, lambda entries: [e | {"type": kind} if i == place else e for i, e in enumerate(entries)])

    return change


def _json(name: str, **changes: Any) -> Any:
    return lambda folder: change_json(folder / name, **changes)


def _pickled(name: str) -> Any:
    def change(folder: Path) -> None:
        (folder / name / "model.safetensors").unlink()
        torch.save({}, folder / name / "pytorch_model.bin")

    return change


def _truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_retyped("custom_st.Transformer"), "is made of custom_st.Transformer"),
        (_retyped("sentence_transformers.models.WordEmbeddings"), "is made of WordEmbeddings"),
        (_retyped("sentence_transformers.models.CNN", 2), "is made of Transformer, Pooling, CNN"),
        (lambda folder: _modules(folder, lambda entries: entries[:1]), "is made of Transformer"),
        (lambda folder: _modules(folder, lambda entries: [{"path": "x"}]), "modules.json cannot be read"),
        (lambda folder: _modules(folder, lambda e: [*e[:2], e[2] | {"path": "../2_Dense"}]), "points to ../2_Dense"),
        (_json("1_Pooling/config.json", pooling_mode="max"), "pools by max"),
        (_json("1_Pooling/config.json", pooling_mode=["mean", "cls"]), "pools by mean and cls"),
        (_json("1_Pooling/config.json", embedding_dimension=31), "reads vectors of width 31"),
        (_json("2_Dense/config.json", in_features=31), "reads vectors of width 31"),
        (_json("2_Dense/config.json", in_features="many"), "2_Dense/config.json cannot be read"),
        (_json("2_Dense/config.json", activation_function="os.system"), "has the activation 'os.system'"),
        (_json("2_Dense/config.json", activation_function="torch.nn.Bilinear"), "has the activation"),
        (_json("2_Dense/config.json", activation_function="torch.nn.modules.activation.Threshold"), "the activation"),
        (_json("2_Dense/config.json", module_input_name="token_embeddings"), "has module_input_name"),
        (_json("2_Dense/config.json", bias=True), "loading state_dict for Dense"),
        (_json("sentence_bert_config.json", transformer_task="fill-mask"), "is for fill-mask"),
        (_json("config_sentence_transformers.json", similarity_fn_name="euclidean"), "compares by euclidean"),
        (_json("config_sentence_transformers.json", default_prompt_name="mine"), "the default prompt 'mine'"),
        (_json("config.json", model_type="mine", auto_map={"AutoModel": "mine.Model"}), "needs code of its own"),
        (_pickled("."), "only pytorch_model.bin, and pickles are never loaded"),
        (_pickled("2_Dense"), "only pytorch_model.bin, and pickles are never loaded"),
        (lambda folder: (folder / "2_Dense/model.safetensors").write_text("no"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json cannot be read"),
        (_truncated, "are damaged"),
    ],
)
def test_what_we_do_not_have_is_one_clear_error(change: Any, said: str, published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "model"))
    change(folder)
    with pytest.raises(ModelError) as refused:
        load_text_encoder(folder, device="cpu")
    assert said in refused.value.given + str(refused.value)
    assert refused.value.mend


def test_texts_cut_to_nothing_are_refused(published: Path) -> None:
    encoder = load_text_encoder(published, device="cpu")
    for tokens in (1, 2):
        with pytest.raises(ModelError, match=f"cut to {tokens} tokens, of which .* adds 2 itself"):
            encoder.embed(["engine"], "query", tokens)
    assert len(encoder.embed(["engine"], "query", 3)) == 1


def test_a_model_that_cannot_be_read_leaves_no_folder_of_embeddings(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "model"))
    _truncated(folder)
    corpus = open_corpus(write_collection(tmp_path / "data"))
    with pytest.raises(ModelError, match="are damaged"):
        encode_corpus(open_model(folder, device="cpu"), corpus, tmp_path / "out", EncodeSettings())
    assert not (tmp_path / "out").exists()


def test_a_model_card_is_no_part_of_the_model(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "model"))
    before = open_model(folder).fingerprint
    (folder / "README.md").write_text("another card")
    assert open_model(folder).fingerprint == before
    change_json(folder / "config.json", layer_norm_eps=1e-5)
    assert open_model(folder).fingerprint != before


def test_prompts_left_out_of_the_pooling_are_refused(published: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "model"))
    change_json(folder / "1_Pooling" / "config.json", include_prompt=False)
    load_text_encoder(folder, device="cpu")
    change_json(folder / "config_sentence_transformers.json", prompts={"query": "query : "})
    with pytest.raises(ModelError, match="leaves its prompts out"):
        load_text_encoder(folder, device="cpu")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("published") / "model", "bert", HEADS["gtr"]())
