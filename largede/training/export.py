"""A checkpoint into a folder that sentence-transformers loads. Needs no GPU, no DeepSpeed and no ranks."""

from pathlib import Path

import torch

from largede.config.recipe import Recipe
from largede.models.build import build_dual_encoder, load_tokenizer
from largede.models.folder import FolderSettings, write_model_folder
from largede.training.checkpoint import (
    CheckpointState,
    SliceReader,
    recipe_of,
    sound_checkpoints,
    sound_state,
)

TOKENIZER_FOLDER = "tokenizer"
EVALUATION_TOKENS = 512
"""Length up to which an exported model reads, whatever it was trained at: GTR's passages in evaluation."""


def export_checkpoint(checkpoint: Path, out: Path) -> None:
    """Write the model of `checkpoint` (a step-… folder, or a run folder: its newest sound one) to the new folder `out`.

    Raises:
        CheckpointError: no checkpoint there, or a damaged one.
        ModelError: `out` exists.
    """
    checkpoint, state = sound_checkpoint(checkpoint)
    recipe = recipe_of(state)
    model = build_dual_encoder(recipe.model)
    reader = SliceReader(checkpoint, state)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(reader.whole_parameter(name))
    kept = checkpoint.parent.parent / TOKENIZER_FOLDER
    tokenizer = load_tokenizer(kept if kept.is_dir() else recipe.model.tokenizer or recipe.model.backbone)
    write_model_folder(model, tokenizer, folder_settings(recipe, model_card(state)), out)


def export_untrained(recipe: Recipe, out: Path) -> None:
    """Write the model of a recipe as it is before its first step: the baseline of a training from scratch."""
    tokenizer = load_tokenizer(recipe.model.tokenizer or recipe.model.backbone)
    card = f"# {recipe.model.backbone} before training, seed {recipe.model.seed}\n"
    write_model_folder(build_dual_encoder(recipe.model), tokenizer, folder_settings(recipe, card), out)


def folder_settings(recipe: Recipe, card: str) -> FolderSettings:
    return FolderSettings(
        similarity=recipe.model.similarity,
        max_tokens=max(EVALUATION_TOKENS, recipe.data.longest_query_tokens, recipe.data.longest_passage_tokens),
        query_prefix=recipe.data.query_prefix,
        passage_prefix=recipe.data.passage_prefix,
        card=card,
    )


def sound_checkpoint(path: Path) -> tuple[Path, CheckpointState]:
    """`path` itself, or the newest undamaged step-… folder of the run folder `path`, and what it says of itself.

    Raises:
        CheckpointError: no checkpoint there, or a damaged one.
    """
    if (path / "checkpoints").is_dir():
        for found, state in sound_checkpoints(path / "checkpoints"):
            return found, state
    return path, sound_state(path)


def model_card(state: CheckpointState) -> str:
    recipe = recipe_of(state)
    versions = ", ".join(f"{name} {version}" for name, version in state.versions.items())
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---

# A T5 dual encoder trained with largede

Backbone {recipe.model.backbone}, layout {recipe.model.layout}, {recipe.model.embedding_dim} dimensions,
{recipe.model.similarity} similarity; {state.step} steps of {recipe.batch.queries} queries at temperature
{recipe.loss.temperature}. Queries were cut at {recipe.data.longest_query_tokens} tokens, passages at
{recipe.data.longest_passage_tokens}.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("this folder")
similarity = model.similarity(model.encode_query(["a question"]), model.encode_document(["a passage"]))
```

Data fingerprint {state.data_fingerprint}. Written by {versions}.
"""
