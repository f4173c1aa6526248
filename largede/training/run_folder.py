"""The folder of a run: what was asked for, with what, on what."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from largede.config.load import recipe_to_yaml
from largede.config.recipe import Recipe
from largede.training.checkpoint import library_versions, write_json
from largede.training.collectives import rank, world_size
from largede.training.export import TOKENIZER_FOLDER


def open_run_folder(folder: Path, recipe: Recipe, tokenizer: Any, steps_done: int, data_fingerprint: str) -> None:
    """On rank 0: write recipe.yaml, run.json and the tokenizer, and drop figures of steps that will be done again."""
    if rank() != 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".recipe.yaml.writing"
    temporary.write_text(recipe_to_yaml(recipe), encoding="utf-8")
    os.replace(temporary, folder / "recipe.yaml")
    write_json(folder / "run.json", {**provenance(), "data_fingerprint": data_fingerprint, "world_size": world_size()})
    tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
    drop_later_figures(folder / "figures.jsonl", steps_done)


def drop_later_figures(path: Path, steps_done: int) -> None:
    if path.is_file():
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= steps_done]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # a line cut off by a kill


def provenance() -> dict[str, Any]:
    """Command, commit, versions and hardware of this process. Values of the environment are not recorded."""
    return {
        "command": sys.argv,
        "commit": git_commit(),
        "versions": {"python": platform.python_version(), **library_versions()},
        "hardware": hardware(),
    }


def git_commit() -> str | None:
    """The commit of largede's own checkout, with a plus when files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=here, capture_output=True, text=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=here, capture_output=True)
    except OSError:
        return None
    return commit.stdout.strip() + ("+" if changed.returncode else "") if commit.returncode == 0 else None


def hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{len(os.sched_getaffinity(0))} CPU cores, {cpu_name()}"


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
