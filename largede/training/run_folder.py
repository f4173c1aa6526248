"""The folder of a run: what was asked for, with what, on what; for every part of it, from one start to the next.

recipe.yaml, run.json    of the newest part
parts/0001/              recipe.yaml, run.json, packages.txt and changes.diff (what was not committed) of the first …
tokenizer/               as exports need it
"""

import math
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from largede.config.load import recipe_to_yaml
from largede.config.recipe import Recipe
from largede.errors import DataError
from largede.files import read_json_object, write_json, write_text, writing_folder
from largede.models.build import save_tokenizer
from largede.runs.evaluated import drop_later_records
from largede.runs.files import FIGURES, PARTS, RUN, line_of_figures
from largede.runs.provenance import (
    environment,
    hardware,
    installed_packages,
    local_changes,
    provenance,
    untracked_files,
)
from largede.runs.redact import shareable
from largede.training.collectives import all_or_none, objects_of_ranks, rank, world_size
from largede.training.export import TOKENIZER_FOLDER


@dataclass(frozen=True)
class Host:
    """One machine of a part, and how many ranks it had."""

    name: str
    hardware: str
    ranks: int


def open_run_folder(folder: Path, recipe: Recipe, tokenizer: Any, steps_done: int, data_fingerprint: str) -> None:
    """Note what this part runs with, write the tokenizer, and drop what is known of steps that will be done again.

    Rank 0 writes. Collective.
    """
    hosts = hosts_of_ranks()

    def write() -> None:
        if rank() != 0:
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_part(folder, recipe, {**facts_of_part(hosts, steps_done, recipe), "data_fingerprint": data_fingerprint})
        save_tokenizer(tokenizer, folder / TOKENIZER_FOLDER)
        drop_later_figures(folder / FIGURES, steps_done)
        drop_later_records(folder, steps_done)

    all_or_none(write)


def hosts_of_ranks() -> list[Host]:
    """Every machine once, in the order of ranks. Collective."""
    is_first_here = os.environ.get("LOCAL_RANK", "0") == "0"
    seen = objects_of_ranks((socket.gethostname(), hardware() if is_first_here else ""))
    names = [name for name, _ in seen]
    return [Host(name, next((h for n, h in seen if n == name and h), ""), names.count(name)) for name in dict(seen)]


def facts_of_part(hosts: list[Host], steps_done: int, recipe: Recipe) -> dict[str, Any]:
    return {
        **provenance(),
        "world_size": world_size(),
        "steps": recipe.run.steps,
        "from_step": steps_done,
        "started": time.time(),
        "hosts": [asdict(host) for host in hosts],
        "environment": environment(),
        "untracked": untracked_files(),
    }


def write_part(folder: Path, recipe: Recipe, facts: dict[str, Any]) -> None:
    """Add a part to the run, then let recipe.yaml and run.json be its own."""
    number = 1 + max((int(path.name) for path in (folder / PARTS).glob("*") if path.name.isdecimal()), default=0)
    facts = {**facts, "part": number, "begun": begun(folder, facts["started"])}
    with writing_folder(folder / PARTS / f"{number:04d}") as part:
        write_text(part / "recipe.yaml", recipe_to_yaml(shareable(recipe)))
        write_json(part / RUN, facts)
        write_text(part / "packages.txt", "".join(f"{line}\n" for line in installed_packages()))
        write_text(part / "changes.diff", local_changes())
    write_text(folder / "recipe.yaml", recipe_to_yaml(shareable(recipe)))
    write_json(folder / RUN, facts)


def begun(folder: Path, now: float) -> float:
    """When the run was started for the first time, unix time."""
    try:
        return float(read_json_object(folder / RUN).get("begun", now))
    except (DataError, TypeError, ValueError):  # none yet, or damaged: it is about to be written anew
        return now


def drop_later_figures(path: Path, steps_done: int) -> None:
    """Keep the lines up to a step; those that cannot be read go too."""
    if path.is_file():
        kept = [line for line in path.read_bytes().splitlines() if _step_of(line) <= steps_done]
        write_text(path, "".join(line.decode() + "\n" for line in kept))


def _step_of(line: bytes) -> float:
    figures = line_of_figures(line)
    return figures["step"] if figures else math.inf
