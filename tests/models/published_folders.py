"""Small folders of sentence-transformers, written by it or by hand in the forms of older versions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

WORDS = tuple("engine harbour violin glacier orchard telescope bakery falcon the of a in query passage : , .".split())  # noqa: SIM905
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 99}
PLACES = 40
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SHAPE | {"max_position_embeddings": PLACES},
    "roberta": SHAPE | {"max_position_embeddings": PLACES + 2, "pad_token_id": 1},
    "xlm-roberta": SHAPE | {"max_position_embeddings": PLACES + 2, "pad_token_id": 1},
    "mpnet": SHAPE | {"max_position_embeddings": PLACES + 2, "pad_token_id": 1},
    "electra": SHAPE | {"max_position_embeddings": PLACES, "embedding_size": 32},
    "distilbert": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 48,
        "vocab_size": 99,
        "max_position_embeddings": PLACES,
    },
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "vocab_size": 99},
    "mt5": {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "vocab_size": 99},
}


def write_transformer(folder: Path, family: str, seed: int = 0) -> Path:
    """A random encoder of the family and a tokenizer of a few words, without position limit of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    loader = AutoModelForTextEncoding if family.endswith("t5") else AutoModel
    loader.from_config(AutoConfig.for_model(family, **FAMILIES[family])).save_pretrained(folder)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS, *"abcdefghijklmnopqrstuvwxyz"])}
    vocabulary |= {f"##{letter}": len(vocabulary) + i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


def write_published(folder: Path, family: str, after: Sequence[Any], mode: str = "mean", **settings: Any) -> Path:
    """A folder as this version of sentence-transformers writes it. `after` are its modules after Pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    transformer = modules.Transformer(str(write_transformer(folder.with_name(f"{folder.name}-raw"), family)))
    model = SentenceTransformer(modules=[transformer, modules.Pooling(32, mode), *after], device="cpu", **settings)
    model.save_pretrained(str(folder))
    return folder


def change_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON object; None takes one away."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    found = {key: value for key, value in (found | changes).items() if value is not None}
    path.write_text(json.dumps(found))
