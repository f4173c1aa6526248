"""Model folders: what `largede export` writes and sentence-transformers loads. `text_encoder` reads them back.

A folder of one tower is a sentence-transformers model (Transformer, Pooling, Dense, Normalize). Layouts with two
towers are written as two such folders, `query/` and `passage/`; what they share is in both. `largede.json` says which
it is and what the weights are those of. They are written from a source a range at a time, so the model need not fit
into memory.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from largede.errors import ModelError
from largede.files import refuse_existing, write_json, write_text, writing_folder
from largede.models.build import save_tokenizer
from largede.models.dual_encoder import SIDES, DualEncoder, Side
from largede.models.pooling import Projection
from largede.models.published import read_object
from largede.models.tower import Tower
from largede.models.weight_files import KINDS, HeldWeights, StoredTensor, WeightWriter
from largede.models.weights import WeightSource

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
    return dict(read_object(folder / ABOUT).get("origin", {}))


def towers_in(folder: Path) -> dict[Side, str] | None:
    """The folder of each side inside a folder that `write_model_folder` wrote; None for one of another origin.

    Raises:
        ModelError: `largede.json` is damaged.
    """
    if not (folder / ABOUT).is_file():
        return None
    towers = read_object(folder / ABOUT).get("towers")
    if not isinstance(towers, dict) or any(towers.get(side) not in ("", side) for side in SIDES):
        raise ModelError(
            f"{folder / ABOUT} names the towers {towers!r}", expected="a folder for each side", mend="export it again"
        )
    return {side: str(towers[side]) for side in SIDES}


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
    save_tokenizer(tokenizer, folder)
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
