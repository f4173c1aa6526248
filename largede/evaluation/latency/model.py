"""The model that is timed: a folder with its own weights, or a preset with random ones, which take as long."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from largede.config.recipe import ModelConfig
from largede.errors import MachineError, ModelError
from largede.models.build import build_structure, load_tokenizer
from largede.models.presets import PRESETS
from largede.models.published import LoadedTower
from largede.models.text_encoder import DTYPES, FolderEncoder, load_text_encoder


class DrawnTokens:
    """In place of a tokenizer where there is none: a word is a token, and which one is of no account."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def __call__(self, texts: str | Sequence[str], **unused: Any) -> dict[str, list[Any]]:
        if isinstance(texts, str):
            return {"input_ids": self._tokens(texts)}
        return {"input_ids": [self._tokens(text) for text in texts]}

    def _tokens(self, text: str) -> list[int]:
        return [1 + sum(word.encode()) % (self.vocabulary - 1) for word in text.split()]


@dataclass(frozen=True)
class OpenedEncoder:
    """An encoder, whose weights it has, and of which preset's shape it is, if of any."""

    encoder: FolderEncoder
    weights: str
    shape: str | None

    @property
    def tokenizer(self) -> Any:
        return self.encoder.tokenizers["query"]

    @property
    def has_tokenizer(self) -> bool:
        return not isinstance(self.tokenizer, DrawnTokens)

    @property
    def prefix(self) -> str:
        return self.encoder.prefixes["query"]

    @property
    def limit(self) -> int | None:
        """The most tokens of a query; T5's relative positions have no end."""
        declared: dict[str, int | None] = getattr(self.encoder, "limits", {})
        positions = getattr(self.encoder.towers["query"].encoder.config, "max_position_embeddings", None)
        found = [limit for limit in (declared.get("query"), positions) if limit is not None]
        return min(found, default=None)

    def tokenise(self, texts: Sequence[str], tokens: int) -> Any:
        """As the encoder does it."""
        return self.encoder.prepare(texts, "query", tokens)


def open_encoder(
    model: str, device: str | None, dtype: str, tokenizer: str | None = None, *, onednn: bool = True
) -> OpenedEncoder:
    """Raises ModelError for what is neither a folder nor a preset, MachineError for a device that is not there.

    `onednn` as in `load_text_encoder`.
    """
    place = _checked_device(device)
    if Path(model).is_dir():
        if tokenizer is not None:
            raise ModelError(
                f"--tokenizer {tokenizer} for a model folder", expected="the folder's own", mend="leave it out"
            )
        encoder = load_text_encoder(model, device=str(place), dtype=dtype, onednn=onednn)
        return OpenedEncoder(encoder, "its own weights", shape_of(encoder))
    if model not in PRESETS:
        raise ModelError(
            f"there is no model folder {model}, and no preset of that name",
            expected=f"a folder written by `largede export`, or one of {', '.join(PRESETS)}",
            mend="check --model",
        )
    encoder = _random_encoder(model, place, dtype, tokenizer)
    if onednn:
        encoder.use_onednn()
    return OpenedEncoder(encoder, "random weights", model)


def shape_of(encoder: FolderEncoder) -> str | None:
    """The preset that the query tower has the shape of."""
    config: Any = encoder.towers["query"].encoder.config
    names = ("num_layers", "d_model", "num_heads", "d_kv", "d_ff")
    found = tuple(getattr(config, name, None) for name in names)
    same = [n for n, s in PRESETS.items() if found == (s.layers, s.d_model, s.heads, s.d_kv, s.d_ff)]
    return same[0] if same else None


def _random_encoder(preset: str, place: torch.device, dtype: str, tokenizer: str | None) -> FolderEncoder:
    """Weights are drawn where they stay: a model for training would be filled on the CPU, which takes minutes."""
    vocabulary = PRESETS[preset].vocabulary
    reader = DrawnTokens(vocabulary) if tokenizer is None else load_tokenizer(tokenizer, vocabulary=vocabulary)
    torch.manual_seed(0)
    tower = build_structure(ModelConfig(backbone=preset), place).query_tower
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.normal_(std=0.05) if parameter.ndim > 1 else parameter.fill_(1.0)
    tower.encoder.to(DTYPES[dtype])
    tower = tower.to(place).eval()
    loaded = LoadedTower(tower, reader, {"query": "", "passage": ""}, {"query": None, "passage": None}, "cosine")
    return FolderEncoder(preset, {"query": loaded, "passage": loaded})


def _checked_device(device: str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        place = torch.device("meta")
    if place.type not in ("cpu", "cuda"):
        raise MachineError(f"--device {device}", expected="cpu, cuda, cuda:1 …", mend="choose one of them")
    gpus = torch.cuda.device_count()
    if place.type == "cuda" and (place.index or 0) >= gpus:
        raise MachineError(
            f"--device {device}, and torch sees {gpus} GPUs",
            expected="a GPU of that number, and a torch built for it",
            mend="run `nvidia-smi`, or choose --device cpu",
        )
    return place
