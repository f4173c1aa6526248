"""What a DeepSpeed file offloads to host memory or NVMe, checked and completed by what the recipe owns.

Adafactor's moments stay in host memory in every case: they are a hundredth of a byte per parameter.
"""

from typing import Any

from largede.config.recipe import Recipe
from largede.errors import RecipeError

SECTIONS = ("offload_optimizer", "offload_param")


def complete_offload(config: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The DeepSpeed settings `config` with the recipe's folder wherever NVMe is asked for.

    Raises:
        RecipeError: a way of offloading that would not train what the recipe says, or NVMe without a folder.
    """
    zero = config.get("zero_optimization", {})
    changed = {name: _section(name, zero[name], recipe) for name in SECTIONS if isinstance(zero.get(name), dict)}
    if not changed:
        return config
    return {**config, "zero_optimization": {**zero, **changed}}


def _section(name: str, section: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    if section.get("ratio", 1.0) != 1.0 or section.get("super_offload"):
        raise RecipeError(
            f"the DeepSpeed file sets ratio or super_offload in {name}",
            expected="the whole of it offloaded: parts of it work with DeepSpeed's own Adam alone",
            mend="leave both out",
        )
    if section.get("device") != "nvme":
        return section
    if "nvme_path" in section:
        raise RecipeError(
            f"the DeepSpeed file sets nvme_path in {name}",
            expected="engine.nvme_path of the recipe to own it",
            mend="remove it there",
        )
    if recipe.engine.nvme_path is None:
        raise RecipeError(
            f"the DeepSpeed file puts {name} on NVMe and engine.nvme_path is empty",
            expected="a folder on a local NVMe disk, the same path on every host",
            mend="give --engine.nvme_path /path/to/a/folder",
        )
    if name == "offload_optimizer" and recipe.optimizer.name != "adafactor":
        raise RecipeError(
            f"optimizer.name {recipe.optimizer.name} with master weights on NVMe",
            expected="adafactor, whose moments need no disk",
            mend="use a file that offloads the optimizer to cpu",
        )
    return {**section, "nvme_path": recipe.engine.nvme_path}
