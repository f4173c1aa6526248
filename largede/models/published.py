"""Folders of sentence-transformers, whoever wrote them, read into a tower.

    modules.json                          the modules in their order: Transformer, Pooling, then Dense and Normalize
    sentence_bert_config.json             max_seq_length and do_lower_case of the Transformer
    config_sentence_transformers.json     prompts, similarity

Nothing in a folder is executed: weights are safetensors, modules are those of sentence-transformers by name, and
activations are torch's. Whatever a folder asks for and we do not do is refused, never passed over.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from largede.errors import ModelError
from largede.models.attention import T5_FAMILY
from largede.models.build import load_encoder, load_tokenizer
from largede.models.dual_encoder import SIDES, Side
from largede.models.pooling import Dense, Normalize
from largede.models.tower import Pooling, PublishedTower, Tower

SIMILARITIES = ("cosine", "dot")
MODULES = "Transformer, Pooling, then Dense and Normalize, all of sentence-transformers"
TO_SAFETENSORS = (
    'convert it where you trust it: python -c "from sentence_transformers import SentenceTransformer as S; '
    "S('OLD').save_pretrained('NEW')\""
)
TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Older versions of sentence-transformers named the file after the kind of model."""
PROMPT_NAMES: dict[Side, tuple[str, ...]] = {"query": ("query",), "passage": ("document", "passage", "corpus")}
"""In the order in which `encode_query` and `encode_document` say they look for them.

Version 6.2 fills in an empty prompt `document` where none is saved, so its `encode_document` never comes to the others;
a model that was saved with one of them means it for its passages. `default_prompt_name` is for neither method.
"""


@dataclass(frozen=True)
class LoadedTower:
    """A tower and how it wants its texts: prefix and largest number of tokens of each side; no limit is None."""

    tower: Tower
    tokenizer: Any
    prefixes: dict[Side, str]
    limits: dict[Side, int | None]
    similarity: str


def load_tower(folder: Path, device: torch.device, dtype: torch.dtype) -> LoadedTower:
    """Read one folder; the encoder's weights in `dtype`, what follows it in float32.

    Args:
        folder: holds modules.json.
        device: where the tower goes.
        dtype: of the encoder.
    Raises:
        ModelError: a module, setting or file that is missing, damaged or not one of those named above.
    """
    modules = _modules_of(folder)
    transformer = folder / modules[0][1]
    settings = _transformer_settings(transformer)
    encoder = _load_transformer(transformer)
    pooling, width = _read_pooling(folder / modules[1][1], encoder.config.hidden_size)
    told = _read_optional(folder / "config_sentence_transformers.json")
    prefixes = _prefixes(folder, told)
    head, dimension = _read_head(folder, modules[2:], width)
    similarity = _similarity(folder, told)
    if similarity == "cosine" and not (len(head) and isinstance(head[-1], Normalize)):
        head.append(Normalize())
    if any(prefixes.values()) and not _read_json(folder / modules[1][1] / "config.json").get("include_prompt", True):
        raise ModelError(
            f"{folder} leaves its prompts out of the pooling",
            expected="pooling over all tokens",
            mend="use a model whose Pooling has include_prompt, or remove its prompts",
        )
    tokenizer = load_tokenizer(transformer)
    if settings.get("do_lower_case"):
        _lower_case(tokenizer)
    # A T5 has no table of positions: its folder's length is a habit, and a collection's paper may say another.
    limit = None if encoder.config.model_type in T5_FAMILY else _limit(encoder, tokenizer, settings)
    own_limits = {"query": settings.get("query_length"), "passage": settings.get("document_length")}
    tower = PublishedTower(encoder.to(dtype), pooling, head, dimension).to(device).eval()
    limits = {side: _least(limit, own_limits[side]) for side in SIDES}
    return LoadedTower(tower, tokenizer, prefixes, limits, similarity)


def is_published(folder: Path) -> bool:
    """Whether this is a folder of sentence-transformers; it may still be one that we refuse."""
    return (folder / "modules.json").is_file()


def _modules_of(folder: Path) -> list[tuple[str, str]]:
    """Name and folder of each module. Their full names differ between versions, so the last word of each counts."""
    with _reading(folder / "modules.json"):
        entries = [(str(m["type"]), str(m["path"])) for m in _read_json(folder / "modules.json")]
    names = [kind.rpartition(".")[2] for kind, _ in entries]
    foreign = [kind for kind, _ in entries if not kind.startswith("sentence_transformers.")]
    if foreign or names[:2] != ["Transformer", "Pooling"] or not {*names[2:]} <= {"Dense", "Normalize"}:
        raise ModelError(
            f"{folder} is made of {', '.join(foreign or names) or 'nothing'}",
            expected=MODULES,
            mend="use a model of these modules; code of its own is never run",
        )
    outside = [path for _, path in entries if Path(path).is_absolute() or ".." in Path(path).parts]
    if outside:
        raise ModelError(
            f"modules.json of {folder} points to {outside[0]}", expected="folders inside it", mend="correct it"
        )
    return [(name, path) for name, (_, path) in zip(names, entries, strict=True)]


def _transformer_settings(folder: Path) -> dict[str, Any]:
    found = next((folder / name for name in TRANSFORMER_CONFIGS if (folder / name).is_file()), None)
    settings = read_object(found) if found else {}
    task, output = settings.get("transformer_task"), settings.get("module_output_name")
    if task not in (None, "feature-extraction") or output not in (None, "token_embeddings"):
        raise ModelError(
            f"the Transformer of {folder} is for {task}, and gives {output}",
            expected="feature-extraction, token_embeddings",
            mend="use a model that embeds texts",
        )
    return settings


def _load_transformer(folder: Path) -> Any:
    """The encoder, float32. Only what transformers itself knows, from safetensors."""
    from transformers import CONFIG_MAPPING

    config = read_object(folder / "config.json")
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise ModelError(
            f"{folder} needs code of its own ({config['auto_map']})",
            expected="a model that transformers knows",
            mend="use another model; code that comes with a model is never run",
        )
    if not any((folder / f"model.safetensors{end}").is_file() for end in ("", ".index.json")):
        raise ModelError(
            f"{folder} has no safetensors weights ({_weights_there(folder)})",
            expected="model.safetensors, or several with model.safetensors.index.json",
            mend=TO_SAFETENSORS,
        )
    return load_encoder(str(folder))


def _weights_there(folder: Path) -> str:
    there = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".h5", ".msgpack"))
    return f"only {', '.join(there)}, and pickles are never loaded" if there else "and no others"


def _read_pooling(folder: Path, hidden_size: int) -> tuple[Pooling, int]:
    """The mode, and the width of what it gives. Two forms: a flag for each mode, or `pooling_mode`."""
    config = read_object(folder / "config.json")
    flags = {key: value for key, value in config.items() if key.startswith("pooling_mode_")}
    modes = config.get("pooling_mode") or [key.removeprefix("pooling_mode_") for key, on in flags.items() if on]
    modes = [modes] if isinstance(modes, str) else modes or ["mean"]
    known: dict[str, Pooling] = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls"}
    if len(modes) != 1 or modes[0] not in known:
        raise ModelError(
            f"{folder} pools by {' and '.join(map(str, modes))}",
            expected="mean, or cls (the first token)",
            mend="use a model of such pooling",
        )
    width = config.get("embedding_dimension", config.get("word_embedding_dimension", hidden_size))
    _demand_width(folder, width, hidden_size)
    return known[modes[0]], width


def _read_head(folder: Path, modules: list[tuple[str, str]], width: int) -> tuple[nn.Sequential, int]:
    """The modules after pooling, and the width of an embedding."""
    head = nn.Sequential()
    for name, path in modules:
        config = _read_optional(folder / path / "config.json")
        for key in ("module_input_name", "module_output_name"):
            if config.get(key) not in (None, "sentence_embedding"):
                raise ModelError(
                    f"{folder / path} has {key} {config[key]!r}",
                    expected="sentence_embedding",
                    mend="use another model",
                )
        if name == "Normalize":
            head.append(Normalize())
        else:
            dense = _read_dense(folder / path, width)
            head.append(dense)
            width = dense.linear.out_features
    return head, width


def _read_dense(folder: Path, width: int) -> Dense:
    config = read_object(folder / "config.json")
    with _reading(folder / "config.json"):
        linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    _demand_width(folder, linear.in_features, width)
    activation = _activation(folder, config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    dense = Dense(linear, activation, adds_input=bool(config.get("use_residual")))
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(
            f"{folder} has no safetensors weights ({_weights_there(folder)})",
            expected="model.safetensors",
            mend=TO_SAFETENSORS,
        )
    with _reading(weights):
        dense.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    return dense


def _activation(folder: Path, name: object) -> nn.Module:
    """torch's own activation of that name; a name that leads anywhere else is refused, not imported."""
    last = str(name).rpartition(".")[2]
    kind = nn.Identity if last == "Identity" else getattr(nn.modules.activation, last, None)
    if str(name).startswith("torch.nn.") and isinstance(kind, type) and issubclass(kind, nn.Module):
        with contextlib.suppress(TypeError):  # some cannot be made without arguments
            return kind()
    raise ModelError(
        f"{folder} has the activation {name!r}",
        expected="one of torch.nn without arguments, such as torch.nn.modules.activation.Tanh",
        mend="use another model",
    )


def _similarity(folder: Path, told: dict[str, Any]) -> str:
    similarity = told.get("similarity_fn_name") or "cosine"
    if similarity not in SIMILARITIES:
        raise ModelError(
            f"{folder} compares by {similarity}", expected=" or ".join(SIMILARITIES), mend="use another model"
        )
    return str(similarity)


def _prefixes(folder: Path, told: dict[str, Any]) -> dict[Side, str]:
    """The prompt of each side, often none."""
    prompts = told.get("prompts") or {}
    default = told.get("default_prompt_name")
    if not isinstance(prompts, dict) or (default is not None and default not in prompts):
        raise ModelError(
            f"config_sentence_transformers.json of {folder} has the default prompt {default!r}",
            expected=f"one of {', '.join(prompts) or 'its prompts, and there is none'}",
            mend="correct it",
        )
    return {side: next((prompts[name] for name in PROMPT_NAMES[side] if prompts.get(name)), "") for side in SIDES}


def _limit(encoder: Any, tokenizer: Any, settings: dict[str, Any]) -> int | None:
    """Tokens that the model reads at most: by its own setting or its tokenizer's, and by its table of positions."""
    own = settings.get("max_seq_length") or tokenizer.model_max_length
    places = None
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):
        # RoBERTa's kin count positions from behind the padding's.
        padding = getattr(encoder.embeddings, "padding_idx", None)
        places = table.num_embeddings - (padding + 1 if isinstance(padding, int) else 0)
    # transformers writes a huge number where a tokenizer knows no limit.
    return _least(own if own < 10**9 else None, places)


def _lower_case(tokenizer: Any) -> None:
    from tokenizers.normalizers import Lowercase, Sequence

    if not tokenizer.is_fast:
        raise ModelError(
            f"do_lower_case with the tokenizer {type(tokenizer).__name__}",
            expected="a tokenizer with tokenizer.json",
            mend="save the tokenizer again with transformers 5",
        )
    backend = tokenizer.backend_tokenizer
    backend.normalizer = Sequence([Lowercase(), *([backend.normalizer] if backend.normalizer else [])])


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _demand_width(folder: Path, found: int, expected: int) -> None:
    if found != expected:
        raise ModelError(
            f"{folder} reads vectors of width {found}",
            expected=f"{expected}, the width of what comes before it",
            mend="check that the parts are of one model",
        )


def _read_optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def read_object(path: Path) -> dict[str, Any]:
    """One JSON object of a model folder. Raises ModelError."""
    found = _read_json(path)
    with _reading(path):
        if not isinstance(found, dict):
            raise ValueError(f"a JSON {type(found).__name__}, not an object")
    return found


def _read_json(path: Path) -> Any:
    with _reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}",
            expected="a sentence-transformers folder with safetensors weights",
            mend="export the model again, or convert its weights to safetensors",
        ) from None
