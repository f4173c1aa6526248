"""Model folders: what `largede export` writes and sentence-transformers loads, and the same folders read back.

A folder of one tower is a sentence-transformers model (Transformer, Pooling, Dense, Normalize). Layouts with two
towers are written as two such folders, `query/` and `passage/`; what they share is in both. `largede.json` says which
it is and what the weights are those of. They are written from a source a range at a time, so the model need not fit
into memory.
"""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from largede.errors import ModelError
from largede.files import refuse_existing, write_json, write_text, writing_folder
from largede.models.build import load_encoder, load_tokenizer
from largede.models.dual_encoder import SIDES, DualEncoder, Side
from largede.models.pooling import Projection
from largede.models.tower import Tower
from largede.models.weight_files import KINDS, HeldWeights, StoredTensor, WeightWriter
from largede.models.weights import WeightSource
from largede.streams.chunks import TokenRows, make_chunks

CHUNK_TOKENS = 16_384
MODULE_TYPES = "sentence_transformers.models."
MAX_SHARD_GIB = 4.0
ABOUT = "largede.json"


@dataclass(frozen=True)
class FolderSettings:
    """What a folder needs to know beside the weights: how they are stored, and what is said of the model."""

    similarity: str
    max_tokens: int
    query_prefix: str
    passage_prefix: str
    card: str
    dtype: str = "float32"
    max_shard_gib: float = MAX_SHARD_GIB
    origin: Mapping[str, str] = field(default_factory=dict)
    """What the weights are those of: goes into `largede.json`."""

    def __post_init__(self) -> None:
        if self.dtype not in KINDS:
            raise ModelError(f"dtype {self.dtype!r}", expected=", ".join(KINDS), mend="choose one of them")
        if not self.max_shard_gib > 0:
            raise ModelError(f"files of at most {self.max_shard_gib} GiB", expected="above zero", mend="give 4")


def write_model_folder(
    model: DualEncoder,
    tokenizer: Any,
    settings: FolderSettings,
    out: Path,
    weights: WeightSource | None = None,
    wrote: Callable[[int], None] = lambda count: None,
    *,
    replacing: bool = False,
) -> None:
    """Write the export folder `out`, under a temporary name until it is whole.

    Args:
        model: gives names, shapes and configs; its parameters may be on the meta device when there are `weights`.
        tokenizer: goes into the folder, of each tower.
        settings: see there.
        out: a folder that is new or empty.
        weights: where the numbers come from; those that the model holds, by default.
        wrote: told the bytes of each piece that was written.
        replacing: `out` may be there; it gives way when the new one is whole.
    Raises:
        ModelError: `out` exists (without `replacing`), or a number does not fit into the dtype.
    """
    if not replacing:
        refuse_existing(out, ModelError)
    writer = WeightWriter(weights or HeldWeights(model), settings.dtype, wrote)
    source_names = {id(parameter): name for name, parameter in model.named_parameters()}
    one_tower = model.query_tower is model.passage_tower
    towers: dict[Side, str] = {"query": "" if one_tower else "query", "passage": "" if one_tower else "passage"}
    with writing_folder(out, replacing=replacing) as partial:
        for side in SIDES[: 1 if one_tower else 2]:
            tower, folder = model.tower(side), partial / towers[side]
            folder.mkdir(exist_ok=True)
            write_encoder(tower.encoder, source_names, writer, settings, folder)
            if tower.projection is not None:
                write_dense(tower.projection, source_names, writer, folder / "2_Dense")
            _write_modules(tower, tokenizer, settings, folder)
        told = {"layout": model.layout, "towers": towers, "origin": dict(settings.origin)}
        write_json(partial / ABOUT, told)
        write_text(partial / "README.md", settings.card)


def origin_of(folder: Path) -> dict[str, str]:
    """What the weights of a folder that `write_model_folder` wrote are those of; nothing where there is no folder.

    Raises:
        ModelError: it was written by something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    if not (folder / ABOUT).is_file():
        raise ModelError(
            f"{folder} exists and is no model folder: it has no {ABOUT}",
            expected="a new or empty folder, or one that `largede export` wrote",
            mend="name another folder",
        )
    return dict(_read_json(folder / ABOUT).get("origin", {}))


def written_bytes(model: DualEncoder, dtype: str) -> int:
    """Bytes of numbers in the folder of a model: shared parameters count for each tower that they are written to."""
    width = KINDS[dtype].dtype.itemsize
    return width * sum(parameter.numel() for tower in model.towers for parameter in tower.parameters())


def write_encoder(
    encoder: Any, source_names: dict[int, str], writer: WeightWriter, settings: FolderSettings, folder: Path
) -> None:
    """What the encoder's own `save_pretrained` writes: config and weights, of tied names the first."""
    parameters = dict(encoder.named_parameters())
    buffers = sorted(set(encoder.state_dict()) - set(dict(encoder.named_parameters(remove_duplicate=False))))
    if buffers:
        raise ModelError(
            f"the backbone keeps {buffers[0]}, which is no parameter", expected="weights alone", mend="use a T5"
        )
    config = copy.deepcopy(encoder.config)
    config.architectures = [type(encoder).__name__]
    config.dtype = KINDS[settings.dtype].dtype
    config.save_pretrained(folder)
    tensors = [StoredTensor(n, source_names[id(p)], tuple(p.shape)) for n, p in parameters.items()]
    writer.write_sharded(folder, tensors, int(settings.max_shard_gib * 2**30))


def write_dense(projection: Projection, source_names: dict[int, str], writer: WeightWriter, folder: Path) -> None:
    """The projection as sentence-transformers' Dense module."""
    folder.mkdir()
    write_json(
        folder / "config.json",
        {
            "in_features": projection.in_features,
            "out_features": projection.out_features,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    weight = projection.weight
    tensor = StoredTensor("linear.weight", source_names[id(weight)], tuple(weight.shape))
    writer.write_file(folder / "model.safetensors", [tensor])


def _write_modules(tower: Tower, tokenizer: Any, settings: FolderSettings, folder: Path) -> None:
    """The tokenizer, and what says how sentence-transformers puts the parts together."""
    tokenizer.model_max_length = settings.max_tokens
    tokenizer.save_pretrained(folder)
    width = tower.encoder.config.hidden_size
    modules = ["Transformer", "Pooling"]
    (folder / "1_Pooling").mkdir()
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
    )
    if tower.projection is not None:
        modules.append("Dense")
    if tower.normalize:
        modules.append("Normalize")
        (folder / f"{len(modules) - 1}_Normalize").mkdir()
    entries = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": MODULE_TYPES + name}
        for i, name in enumerate(modules)
    ]
    write_json(folder / "modules.json", entries)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": settings.max_tokens, "do_lower_case": False})
    prompts = {"query": settings.query_prefix, "document": settings.passage_prefix}
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": settings.similarity},
    )


class FolderEncoder:
    """A loaded model folder: texts in, one float32 vector each out."""

    def __init__(
        self, towers: dict[Side, Tower], tokenizers: dict[Side, Any], prefixes: dict[Side, str], similarity: str
    ) -> None:
        self.towers = towers
        self.tokenizers = tokenizers
        self.prefixes = prefixes
        self.similarity = similarity
        self.device = next(towers["query"].parameters()).device

    @property
    def dimension(self) -> int:
        """Width of one embedding."""
        tower = self.towers["query"]
        return tower.projection.out_features if tower.projection else tower.encoder.config.hidden_size

    @torch.no_grad()
    def embed(self, texts: Sequence[str], side: Side, max_tokens: int) -> np.ndarray:
        """Embeddings (len(texts), dimension), float32, rows in the order of the texts.

        Texts are cut to `max_tokens`. Rows are computed in chunks of equal token budget, sorted by length.
        """
        result = np.empty((len(texts), self.dimension), dtype=np.float32)
        if not len(texts):
            return result
        prefixed = [self.prefixes[side] + text for text in texts]
        encoded = self.tokenizers[side](
            prefixed, truncation=True, max_length=max_tokens, return_attention_mask=False, verbose=False
        )
        for chunk in make_chunks(TokenRows.of(encoded["input_ids"]), CHUNK_TOKENS):
            moved = chunk.to(self.device)
            result[chunk.rows.numpy()] = self.towers[side](*moved.inputs).float().cpu().numpy()
        return result


def load_text_encoder(path: str | Path, *, device: str | None = None, dtype: str = "float32") -> FolderEncoder:
    """Load a folder written by `largede export`, or a published sentence-transformers folder of the same modules.

    Raises:
        ModelError: no such folder, modules that are not Transformer, mean Pooling, Dense, Normalize, or bad weights.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(f"no model folder {folder}", expected="a folder", mend="run `largede export` first")
    names: dict[Side, str] = {"query": "", "passage": ""}
    if (folder / ABOUT).is_file():
        names = _read_json(folder / ABOUT)["towers"]
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in dtypes:
        raise ModelError(f"dtype {dtype!r}", expected=" or ".join(dtypes), mend="choose one of them")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    loaded = {name: _load_tower(folder / name, place, dtypes[dtype]) for name in set(names.values())}
    prompts = {side: loaded[names[side]].prompts for side in SIDES}
    return FolderEncoder(
        {side: loaded[names[side]].tower for side in SIDES},
        {side: loaded[names[side]].tokenizer for side in SIDES},
        {"query": prompts["query"].get("query", ""), "passage": prompts["passage"].get("document", "")},
        "cosine" if loaded[names["query"]].tower.normalize else "dot",
    )


@dataclass(frozen=True)
class LoadedTower:
    tower: Tower
    tokenizer: Any
    prompts: dict[str, str]


def _load_tower(folder: Path, device: torch.device, dtype: torch.dtype) -> LoadedTower:
    modules = [(m["type"].rpartition(".")[2], folder / m["path"]) for m in _read_json(folder / "modules.json")]
    kinds = [kind for kind, _ in modules]
    allowed = [["Transformer", "Pooling", *d, *n] for d in ([], ["Dense"]) for n in ([], ["Normalize"])]
    if kinds not in allowed:
        raise ModelError(
            f"{folder} is made of {', '.join(kinds)}",
            expected="Transformer, Pooling, then Dense and Normalize or not",
            mend="use a model with mean pooling and one projection",
        )
    parts = dict(modules)
    _demand_mean_pooling(parts["Pooling"])
    encoder = load_encoder(str(parts["Transformer"]))
    projection = _read_dense(parts["Dense"]) if "Dense" in parts else None
    tower = Tower(encoder.to(dtype), projection, normalize="Normalize" in parts).to(device).eval()
    settings = folder / "config_sentence_transformers.json"
    prompts = (_read_json(settings).get("prompts") or {}) if settings.is_file() else {}
    return LoadedTower(tower, load_tokenizer(parts["Transformer"]), prompts)


def _demand_mean_pooling(folder: Path) -> None:
    pooling = _read_json(folder / "config.json")
    is_mean = pooling.get("pooling_mode") == "mean" or pooling.get("pooling_mode_mean_tokens") is True
    others = [k for k, v in pooling.items() if k.startswith("pooling_mode_") and v and k != "pooling_mode_mean_tokens"]
    if not is_mean or others:
        raise ModelError(f"{folder} pools otherwise", expected="mean pooling", mend="use a model with mean pooling")


def _read_dense(folder: Path) -> Projection:
    config = _read_json(folder / "config.json")
    if config.get("bias") or not config.get("activation_function", "").endswith("Identity"):
        raise ModelError(
            f"{folder} has a bias or an activation", expected="a plain linear map", mend="use a GTR-like model"
        )
    projection = Projection(config["in_features"], config["out_features"])
    with _reading(folder / "model.safetensors"):
        projection.load_state_dict({"weight": load_file(folder / "model.safetensors")["linear.weight"].float()})
    return projection


def _read_json(path: Path) -> Any:
    with _reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read: {str(error).splitlines()[0]}",
            expected="a sentence-transformers folder with safetensors weights",
            mend="export the model again, or convert its weights to safetensors",
        ) from None
