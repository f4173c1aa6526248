"""What must be the same on all ranks of a run, and in its part before and after an interruption."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from largede.config.deepspeed import read_deepspeed_file
from largede.config.recipe import ModelConfig, Recipe
from largede.errors import CheckpointError, RecipeError, TrainingError
from largede.files import fingerprint_of
from largede.models.presets import PRESETS
from largede.runs.provenance import library_versions
from largede.training.checkpoints.retention import FOLDER_PATTERN
from largede.training.checkpoints.state import CheckpointState, OtherFormatError, read_state, recipe_of
from largede.training.collectives import all_or_none, objects_of_ranks

LONGEST_SHOWN = 60
DATA, TOKENS = "the data's fingerprint", "the tokenizer's fingerprint"


def refuse_disagreement(recipe: Recipe, data_fingerprint: str, tokenizer_fingerprint: str) -> None:
    """Stop all ranks when one was given something else than the others, be it under the same name. Collective."""
    views = objects_of_ranks(all_or_none(lambda: what_is_read(recipe, data_fingerprint, tokenizer_fingerprint)))
    for other, its_view in enumerate(views):
        for what in {**views[0], **its_view}:
            content, at_first = its_view.get(what, "nothing"), views[0].get(what, "nothing")
            if content != at_first:
                seen = f"{shortened(content)}, not {shortened(at_first)}"
                raise TrainingError(
                    f"rank {other} has another {what} than rank 0: {seen}",
                    expected="the same on every host",
                    mend="copy recipe, shards and all they name to all hosts, or use a shared folder",
                )


def what_is_read(recipe: Recipe, data_fingerprint: str, tokenizer_fingerprint: str) -> dict[str, str]:
    """What this rank found under the names in the recipe, by what it is."""
    return {
        **{f"{name} in its recipe": str(value) for name, value in dotted_settings(recipe).items()},
        "data": data_fingerprint,
        "tokenizer": tokenizer_fingerprint,
        "DeepSpeed file": json.dumps(read_deepspeed_file(recipe.engine.deepspeed), sort_keys=True),
        "checkpoint in run.start_from": state_begun_from(recipe),
        "set of library versions": json.dumps(library_versions(), sort_keys=True),
    }


def state_begun_from(recipe: Recipe) -> str:
    """The state in run.start_from where the run begins with it; where it goes on, that may be gone."""
    start = recipe.run.start_from
    begins = not any(Path(recipe.run.out, "checkpoints").glob(FOLDER_PATTERN))
    return json.dumps(asdict(read_state(Path(start))), sort_keys=True) if start and begins else ""


def shortened(content: str) -> str:
    return content if len(content) <= LONGEST_SHOWN else content[:LONGEST_SHOWN] + "…"


def fingerprint_of_tokenizer(tokenizer: Any) -> str:
    """Of its pieces and their numbers."""
    return fingerprint_of(sorted(tokenizer.get_vocab().items()))


# What may change between two parts of a run without making it another run.
FREE_TO_CHANGE = frozenset(
    [
        "model.tokenizer",
        "data.shards",
        "data.workers",
        "data.damaged_blocks",
        "data.refresh_steps",
        "batch.chunk_tokens",
        "batch.no_grad_chunk_tokens",
        "batch.gradient_cache",
        "loss.block_scores",
        "run.out",
        "run.log_every",
        "run.checkpoint_every",
        "run.keep_checkpoints",
        "run.keep_every",
        "run.keep_best",
        "run.keep_unevaluated",
        "run.save_async",
        "run.when_disk_full",
        "run.start_from",
        "run.dry_run",
    ]
)


def refuse_run_of_others(checkpoints: Path, recipe: Recipe, data_fingerprint: str, tokenizer_fingerprint: str) -> None:
    """Refuse at once, before a model is made, to go on in a folder whose run is another one. Not collective.

    Raises:
        CheckpointError: the newest checkpoint that can be read is of another run, or of a largede that this one does
            not understand: passing that over would begin the run anew.
    """
    for path in sorted(checkpoints.glob(FOLDER_PATTERN), reverse=True):
        try:
            state = read_state(path)
        except OtherFormatError:
            raise
        except CheckpointError:
            continue  # damaged: whoever loads says so
        refuse_other_run(recipe, data_fingerprint, tokenizer_fingerprint, path, state)
        return


def refuse_other_run(
    recipe: Recipe, data_fingerprint: str, tokenizer_fingerprint: str, path: Path, state: CheckpointState
) -> None:
    """Refuse to continue a run under settings that would make it another run; the engine's are free to change."""
    begun = recipe_of(state)
    before = {**dotted_settings(begun), DATA: state.data_fingerprint, TOKENS: state.tokenizer_fingerprint}
    now = {**dotted_settings(recipe), DATA: data_fingerprint, TOKENS: tokenizer_fingerprint}
    changed = [n for n in {**before, **now} if now.get(n) != before.get(n) and not is_free_to_change(n)]
    if changed:
        name = changed[0]
        raise CheckpointError(
            f"{name} is {now.get(name)} but the run in {path.parent.parent} was begun with {before.get(name)}"
            + (f" (so are {', '.join(changed[1:])})" if changed[1:] else ""),
            expected="the same settings, so that the run goes on as if never interrupted",
            mend=way_on(recipe, begun, changed, path, state.step),
        )


def way_on(recipe: Recipe, begun: Recipe, changed: list[str], path: Path, steps_done: int) -> str:
    """What whoever changed these settings of a run probably wants to do instead."""
    if recipe.run.start_from and recipe.run.start_from != begun.run.start_from:
        return "a run that starts from another's weights, such as a second stage, needs a folder of its own: --run.out"
    if changed == ["run.steps"] and recipe.run.steps <= steps_done:
        return f"{steps_done} steps are done already: use {path.name}, or an older checkpoint beside it"
    if changed == ["run.steps"]:
        return "for more steps begin another run: --run.out with --run.start_from; the learning rate depends on them"
    if changed == [DATA]:
        return "name the shards that the run was begun with, wherever they lie now, or give another --run.out"
    if changed == [TOKENS]:
        return f"use the tokenizer that is kept in {path.parent.parent}, or give another --run.out"
    return "restore them, or give another --run.out (and --run.start_from this checkpoint)"


def is_free_to_change(name: str) -> bool:
    # Where a source lies is free, what is in it is not: the data's fingerprint says that.
    is_place = name.startswith("data.sources.") and name.endswith(".shards")
    return is_place or name in FREE_TO_CHANGE or name.startswith(("engine.", "guard."))


def dotted_settings(recipe: Recipe) -> dict[str, Any]:
    """`{"batch.queries": 2048, …, "data.sources.marco.weight": 1.0, …}`."""
    return dict(_dotted(asdict(recipe)))


def _dotted(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def tokenizer_of(model: ModelConfig) -> str:
    """The tokenizer a recipe names, or its backbone's own. Raises RecipeError where there is neither."""
    if not model.tokenizer and model.backbone in PRESETS:
        raise RecipeError(
            f"model.backbone {model.backbone} is a shape without a tokenizer, and model.tokenizer is empty",
            expected="a tokenizer",
            mend="give --model.tokenizer google-t5/t5-base, or a folder that `largede-data vocabulary` wrote",
        )
    return model.tokenizer or model.backbone
