"""Settings of a DeepSpeed file that would train wrongly without a word are refused; the rest is completed.

ZeRO-1 with overlap_comm reduces only what the step's last backward call reached: with two towers the query tower's
gradient stays each rank's own (measured: the loss leaves the true one at the second step).

Offloading, measured at DeepSpeed 0.19.8 on CPU ranks against the same run without it, three steps: optimizer and
parameters in host memory, equal bit for bit; bf16 parameters on NVMe without prefetching, equal bit for bit;
with prefetching, gradients 3 % off from the second step on; float32 parameters, 3 % off; master weights on NVMe,
gradients of some parameters hundreds of times too large (inferred: those that do not begin at a whole block of the
disk). Hence the refusals. Adafactor's moments stay in memory: they are a hundredth of a byte per parameter.
"""

from typing import Any

from largede.config.recipe import Recipe
from largede.errors import RecipeError


def checked_settings(config: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The DeepSpeed settings `config` with the recipe's folder where parameters go to NVMe.

    Raises:
        RecipeError: a setting that would not train what the recipe says, or NVMe without a folder.
    """
    zero = config.get("zero_optimization", {})
    _refuse_overlap_at_stage_1(zero)
    optimizer, parameters = zero.get("offload_optimizer") or {}, zero.get("offload_param") or {}
    _refuse_partial(optimizer)
    if optimizer.get("device") == "nvme":
        raise RecipeError(
            "the DeepSpeed file puts offload_optimizer on NVMe",
            expected="master weights on the GPU or in host memory: DeepSpeed reads their gradients back wrongly",
            mend="set its device to cpu; parameters can go to NVMe (ds_configs/zero3_bf16_nvme.json)",
        )
    if parameters.get("device") != "nvme":
        return config
    _refuse_inexact_nvme(config, zero)
    return {
        **config,
        "zero_optimization": {**zero, "offload_param": {**parameters, "nvme_path": _folder(parameters, recipe)}},
    }


def _refuse_overlap_at_stage_1(zero: dict[str, Any]) -> None:
    if zero.get("stage") == 1 and zero.get("overlap_comm"):
        raise RecipeError(
            "the DeepSpeed file sets overlap_comm at ZeRO stage 1",
            expected="overlap_comm false there: otherwise part of the gradient is never reduced over ranks",
            mend="set it to false, or use stage 2",
        )


def _refuse_partial(optimizer: dict[str, Any]) -> None:
    if optimizer.get("ratio", 1.0) != 1.0 or optimizer.get("super_offload"):
        raise RecipeError(
            "the DeepSpeed file sets ratio or super_offload in offload_optimizer",
            expected="the whole optimizer offloaded: parts of it work with DeepSpeed's own Adam alone",
            mend="leave both out",
        )


def _refuse_inexact_nvme(config: dict[str, Any], zero: dict[str, Any]) -> None:
    if not config.get("bf16", {}).get("enabled") or zero.get("stage3_prefetch_bucket_size") != 0:
        raise RecipeError(
            "the DeepSpeed file puts offload_param on NVMe in float32 or with prefetching",
            expected="bf16 enabled and stage3_prefetch_bucket_size 0: otherwise gradients are wrong",
            mend="use ds_configs/zero3_bf16_nvme.json",
        )


def _folder(parameters: dict[str, Any], recipe: Recipe) -> str:
    if "nvme_path" in parameters:
        raise RecipeError(
            "the DeepSpeed file sets nvme_path",
            expected="engine.nvme_path of the recipe to own it",
            mend="remove it there",
        )
    if recipe.engine.nvme_path is None:
        raise RecipeError(
            "the DeepSpeed file puts offload_param on NVMe and engine.nvme_path is empty",
            expected="a folder on a local NVMe disk, the same path on every host",
            mend="give --engine.nvme_path /path/to/a/folder",
        )
    return recipe.engine.nvme_path
