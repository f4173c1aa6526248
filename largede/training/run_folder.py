"""The folder of a run: what was asked for, with what, on what."""

import json
from pathlib import Path
from typing import Any

from largede.config.load import recipe_to_yaml
from largede.config.recipe import Recipe
from largede.files import write_json, write_text
from largede.provenance import provenance
from largede.training.collectives import rank, world_size
from largede.training.export import TOKENIZER_FOLDER


def open_run_folder(folder: Path, recipe: Recipe, tokenizer: Any, steps_done: int, data_fingerprint: str) -> None:
    """On rank 0: write recipe.yaml, run.json and the tokenizer, and drop figures of steps that will be done again."""
    if rank() != 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "recipe.yaml", recipe_to_yaml(recipe))
    write_json(folder / "run.json", {**provenance(), "data_fingerprint": data_fingerprint, "world_size": world_size()})
    tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
    drop_later_figures(folder / "figures.jsonl", steps_done)


def drop_later_figures(path: Path, steps_done: int) -> None:
    if path.is_file():
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= steps_done]
        write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # a line cut off by a kill
