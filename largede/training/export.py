"""A checkpoint into a folder that sentence-transformers loads. Needs no GPU, no DeepSpeed, no ranks and little memory.

The model is never built: its modules are made without numbers (on the meta device), and the numbers go from the files
of the checkpoint to those of the folder a piece at a time.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from largede.config.recipe import ModelConfig, Recipe
from largede.errors import CheckpointError, MachineError, ModelError
from largede.files import refuse_existing, sha256_file
from largede.models.build import build_dual_encoder, build_structure, is_t5, load_tokenizer
from largede.models.dual_encoder import DualEncoder
from largede.models.folder import (
    MAX_SHARD_GIB,
    FolderSettings,
    origin_of,
    write_model_folder,
    written_bytes,
)
from largede.runs.files import CHECKPOINTS
from largede.training.checkpoints.read import CheckpointWeights, SliceReader
from largede.training.checkpoints.retention import FOLDER_PATTERN, reading, step_of
from largede.training.checkpoints.state import STATE_FILE, CheckpointState, recipe_of, sound_checkpoints, sound_state
from largede.training.model_card import model_card

TOKENIZER_FOLDER = "tokenizer"
EVALUATION_TOKENS = 512
"""Length up to which an exported model reads, whatever it was trained at: GTR's passages in evaluation."""
SPEAK_EVERY_S = 10.0


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    dtype: str = "float32",
    max_shard_gib: float = MAX_SHARD_GIB,
    again: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the model of `checkpoint` (a step-… folder, or a run folder: its newest sound one) to the new folder `out`.

    Args:
        checkpoint: every file in it is checked against its checksum before it is read.
        out: appears under its name when all of it is written.
        dtype: of the written weights. The default, float32, is that of the checkpoint's masters, so nothing is
            lost; a reader can round when it loads.
        max_shard_gib: more weights than this are written as several files.
        again: `out` may be an export of before. One of the same checkpoint, written the same way, stays as it is; any
            other is replaced when the new one is whole.
        say: told what was done, and the progress for models that take longer than some seconds.
    Returns:
        The step-… folder that was exported.
    Raises:
        CheckpointError: no checkpoint there, or a damaged one.
        ModelError: `out` exists, or with `again` is no export; an unknown dtype, or one too small for a weight; the
            backbone's config is missing.
        MachineError: not enough room.
    """
    if again:
        out = out.resolve()  # a folder behind a link gives way, not the link
        found = origin_of(out)
    else:
        refuse_existing(out, ModelError)
        found = {}
    with sound_checkpoint(checkpoint) as (checkpoint, state):
        with staying(checkpoint):
            card = model_card(checkpoint, state, dtype)
            origin = {"checkpoint": checkpoint.name, "state": sha256_file(checkpoint / STATE_FILE)}
        origin |= {"dtype": dtype, "max_shard_gib": str(max_shard_gib)}
        if found == origin:
            say(f"{out} holds {checkpoint} already")
            return checkpoint
        settings = replace(folder_settings(recipe_of(state), card, dtype, max_shard_gib), origin=origin)
        write_export(checkpoint, state, settings, out, replacing=again, say=say)
    say(f"exported {checkpoint} to {out}")
    return checkpoint


def write_export(
    checkpoint: Path,
    state: CheckpointState,
    settings: FolderSettings,
    out: Path,
    *,
    replacing: bool,
    say: Callable[[str], None],
) -> None:
    """Write a sound checkpoint's model to `out`. Raises as `export_checkpoint`."""
    recipe = recipe_of(state)
    model = structure_without_numbers(recipe.model)
    refuse_other_shapes(model, checkpoint, state)
    size = written_bytes(model, settings.dtype)
    demand_room(out, size)
    kept = checkpoint.parent.parent / TOKENIZER_FOLDER
    tokenizer = load_tokenizer(kept if kept.is_dir() else recipe.model.tokenizer or recipe.model.backbone)
    weights = CheckedWeights(checkpoint, state)
    write_model_folder(model, tokenizer, settings, out, weights, Progress(size, say).wrote, replacing=replacing)


def export_untrained(recipe: Recipe, out: Path) -> None:
    """Write the model of a recipe as it is before its first step: the baseline of a training from scratch."""
    tokenizer = load_tokenizer(recipe.model.tokenizer or recipe.model.backbone)
    card = f"# {recipe.model.backbone} before training, seed {recipe.model.seed}\n"
    write_model_folder(build_dual_encoder(recipe.model), tokenizer, folder_settings(recipe, card), out)


def folder_settings(
    recipe: Recipe, card: str, dtype: str = "float32", max_shard_gib: float = MAX_SHARD_GIB
) -> FolderSettings:
    return FolderSettings(
        similarity=recipe.model.similarity,
        max_tokens=max(EVALUATION_TOKENS, recipe.data.longest_query_tokens, recipe.data.longest_passage_tokens),
        query_prefix=recipe.data.query_prefix,
        passage_prefix=recipe.data.passage_prefix,
        card=card,
        dtype=dtype,
        max_shard_gib=max_shard_gib,
    )


@contextmanager
def sound_checkpoint(path: Path) -> Iterator[tuple[Path, CheckpointState]]:
    """`path` itself, or the newest undamaged step-… folder of the run folder `path`, and what it says of itself.

    A run at work does not remove it meanwhile.

    Raises:
        CheckpointError: no checkpoint there, or a damaged one.
    """
    folder = path / CHECKPOINTS
    if not folder.is_dir():
        with reading(path):
            yield path, sound_state(path)
        return
    name = newest_of(folder)
    while name:
        with reading(folder / name):
            found, state = next(sound_checkpoints(folder, upto_step=step_of(name)), (None, None))
            if found is not None and state is not None and found.name == name:
                yield found, state
                return
            was_removed = not (folder / name).exists()  # before we held it: there is a newer one by now
        name = newest_of(folder) if was_removed else found.name if found is not None else ""
    names = ", ".join(sorted(found.name for found in folder.glob(FOLDER_PATTERN)))
    raise CheckpointError(
        f"no checkpoint of {path} can be used: {names} damaged" if names else f"{path} has no checkpoint yet",
        expected="a run with one checkpoint that is whole",
        mend="bring one back from a copy, or let the run go on to its next checkpoint",
    )


def newest_of(checkpoints: Path) -> str:
    """The name of the newest checkpoint, whole or not; nothing where there is none."""
    return max((path.name for path in checkpoints.glob(FOLDER_PATTERN)), default="")


def structure_without_numbers(config: ModelConfig) -> DualEncoder:
    """The modules of a recipe's model, their parameters without memory."""
    if is_t5(config):
        return build_structure(config, torch.device("meta"))
    # A BERT brings buffers and layouts of its own; it is small enough to be built whole.
    return build_dual_encoder(config)


def refuse_other_shapes(model: DualEncoder, checkpoint: Path, state: CheckpointState) -> None:
    """Raise when the backbone's config no longer says what the checkpoint holds."""
    ours = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    differing = sorted(name for name in {**ours, **state.parameters} if ours.get(name) != state.parameters.get(name))
    if differing:
        name = differing[0]
        raise CheckpointError(
            f"{checkpoint} holds {name} of shape {state.parameters.get(name)} ({len(differing)} parameters differ)",
            expected=f"{ours.get(name)}, as its recipe's backbone says",
            mend="give model.backbone in the checkpoint's recipe the config.json that the run was begun with",
        )


def demand_room(out: Path, size: int) -> None:
    place = next(parent for parent in out.absolute().parents if parent.exists())
    usage = shutil.disk_usage(place)
    if usage.total == 0:  # as /proc
        raise MachineError(f"{place} keeps no files", expected="a folder on a disk", mend="name another folder")
    free = usage.free
    if free < size:
        raise MachineError(
            f"{out} takes {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free there",
            expected="room for the weights",
            mend="free some, name another folder, or write --dtype bfloat16",
        )


class CheckedWeights:
    """The weights of a sound checkpoint by range; one that is changed or removed while it is read is refused."""

    def __init__(self, checkpoint: Path, state: CheckpointState) -> None:
        self.checkpoint = checkpoint
        with staying(checkpoint):
            self.weights = CheckpointWeights(SliceReader(checkpoint, state))

    def read(self, name: str, start: int, length: int) -> Tensor:
        with staying(self.checkpoint):
            return self.weights.read(name, start, length)


@contextmanager
def staying(checkpoint: Path) -> Iterator[None]:
    """Say of a sound checkpoint that it was taken away when its files can no longer be read."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint} was whole and cannot be read any more: {error}",
            expected="a checkpoint that stays while it is exported",
            mend="export a newer one, or raise run.keep_checkpoints",
        ) from None


class Progress:
    """Says how far a long export is, how fast, and how long it still takes."""

    def __init__(self, size: int, say: Callable[[str], None]) -> None:
        self.size = size
        self.say = say
        self.written = 0
        self.began_s = self.spoke_s = time.perf_counter()

    def wrote(self, count: int) -> None:
        """`count` bytes more are written."""
        self.written += count
        now_s = time.perf_counter()
        if now_s - self.spoke_s < SPEAK_EVERY_S:
            return
        self.spoke_s = now_s
        rate = self.written / (now_s - self.began_s)
        self.say(
            f"{self.written / 1e9:.1f} of {self.size / 1e9:.1f} GB written, {rate / 1e6:.0f} MB/s, "
            f"{(self.size - self.written) / rate:.0f} s left"
        )
