"""What training takes from a DeepSpeed file: refused where a recipe or the ranks cannot have it, else completed.

Training and the plan both ask here, so a plan never promises what the engine refuses. Nothing here imports torch.

ZeRO-1 with overlap_comm reduces only what the step's last backward call reached: with two towers the query tower's
gradient stays each rank's own (measured: the loss leaves the true one at the second step). ZeRO-1 with bf16 parameters
and float32 sums takes another optimizer of DeepSpeed's, which hides the slices that Adafactor and checkpoints need.
bf16 parameters without float32 sums add the chunks' gradients up in bf16 (seen once: about one part in a hundred off).

Offloading, measured at DeepSpeed 0.19.8 on CPU ranks against the same run without it, three steps: optimizer and
parameters in host memory, equal bit for bit; bf16 parameters on NVMe without prefetching, equal bit for bit;
with prefetching, gradients 3 % off from the second step on; float32 parameters, 3 % off; master weights on NVMe,
gradients of some parameters hundreds of times too large (inferred: those that do not begin at a whole block of the
disk). Hence the refusals. Adafactor's moments stay in memory: they are a hundredth of a byte per parameter.
"""

from typing import Any

from largede.config.deepspeed import ZeroSettings, find_deepspeed_file, read_deepspeed_file, zero_settings
from largede.config.recipe import EngineConfig, Recipe
from largede.errors import RecipeError

ABOVE_ALL_PARAMETERS = 10**15


def checked_settings(recipe: Recipe, ranks: int, ranks_per_node: int) -> dict[str, Any]:
    """The DeepSpeed file of the recipe, completed by what depends on precision and on the recipe's engine.

    Raises:
        RecipeError: a file that cannot be read, a setting that would not train what the recipe says or that the engine
            cannot have on so many ranks, or NVMe without a folder.
    """
    config = read_deepspeed_file(recipe.engine.deepspeed)
    refuse_impossible(config, recipe, ranks, ranks_per_node)
    config = {**config, "zero_optimization": _completed_zero(config.get("zero_optimization", {}), recipe.engine)}
    if zero_settings(config).precision == "bf16":
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def refuse_impossible(config: dict[str, Any], recipe: Recipe, ranks: int, ranks_per_node: int) -> None:
    """Every refusal that needs more than the file, in one place."""
    zero, file = zero_settings(config), find_deepspeed_file(recipe.engine.deepspeed).name
    _refuse_bf16_below_stage_2(zero, file)
    _refuse_engine(zero, file, recipe.engine)
    _refuse_copies_across_nodes(zero, file, ranks, ranks_per_node)
    _refuse_overlap_at_stage_1(zero, file)
    _refuse_offload(config.get("zero_optimization", {}), zero, file)
    if zero.parameters_on == "nvme":
        _refuse_inexact_nvme(zero, file)
        _refuse_folder(config["zero_optimization"]["offload_param"], recipe.engine, file)


def _completed_zero(zero: dict[str, Any], engine: EngineConfig) -> dict[str, Any]:
    """NVMe gets the recipe's folder. ZeRO-3 gathers parameters below a threshold once per step and keeps them; so for
    resident parameters the threshold goes above all."""
    completed = dict(zero)
    parameters = zero.get("offload_param") or {}
    if parameters.get("device") == "nvme":
        completed["offload_param"] = {**parameters, "nvme_path": engine.nvme_path}
    if engine.parameters == "resident":
        completed["stage3_param_persistence_threshold"] = ABOVE_ALL_PARAMETERS
    return completed


def _refuse_bf16_below_stage_2(zero: ZeroSettings, file: str) -> None:
    if zero.precision == "bf16" and zero.stage < 2:
        raise RecipeError(
            f"{file} asks for bf16 parameters at ZeRO stage {zero.stage}",
            expected="ZeRO 2 or 3 with bf16, torch_autocast at stage 1, float32 at stage 0",
            mend="use ds_configs/zero2_bf16.json or zero3_bf16.json, or torch_autocast as in zero1_bf16.json",
        )


def _refuse_engine(zero: ZeroSettings, file: str, engine: EngineConfig) -> None:
    if engine.parameters == "resident" and (zero.stage != 3 or zero.parameters_on != "none"):
        raise RecipeError(
            f"engine.parameters is resident with {file}",
            expected="ZeRO-3 without parameter offload: elsewhere parameters are resident anyway, or must not be",
            mend="set engine.parameters to regathered",
        )
    if engine.gradient_reduction == "coalesced" and zero.stage == 0:
        raise RecipeError(
            f"engine.gradient_reduction is coalesced with {file}",
            expected="ZeRO 1, 2 or 3: DeepSpeed has it nowhere else",
            mend="set engine.gradient_reduction to per_chunk",
        )


def _refuse_copies_across_nodes(zero: ZeroSettings, file: str, ranks: int, ranks_per_node: int) -> None:
    if zero.hpz > 1 and (ranks % zero.hpz or ranks_per_node % zero.hpz):
        raise RecipeError(
            f"{file} keeps copies within {zero.hpz} ranks, and there are {ranks}, {ranks_per_node} on a node",
            expected="multiples of zero_hpz_partition_size: a copy that spans nodes would save no traffic",
            mend="use zero3_bf16.json, or other numbers of GPUs",
        )


def _refuse_overlap_at_stage_1(zero: ZeroSettings, file: str) -> None:
    if zero.stage == 1 and zero.overlap_comm:
        raise RecipeError(
            f"{file} sets overlap_comm at ZeRO stage 1",
            expected="overlap_comm false there: otherwise part of the gradient is never reduced over ranks",
            mend="set it to false, or use stage 2",
        )


def _refuse_offload(settings: dict[str, Any], zero: ZeroSettings, file: str) -> None:
    optimizer = settings.get("offload_optimizer") or {}
    if optimizer.get("ratio", 1.0) != 1.0 or optimizer.get("super_offload"):
        raise RecipeError(
            f"{file} sets ratio or super_offload in offload_optimizer",
            expected="the whole optimizer offloaded: parts of it work with DeepSpeed's own Adam alone",
            mend="leave both out",
        )
    if zero.optimizer_on == "nvme":
        raise RecipeError(
            f"{file} puts offload_optimizer on NVMe",
            expected="master weights on the GPU or in host memory: DeepSpeed reads their gradients back wrongly",
            mend="set its device to cpu; parameters can go to NVMe (ds_configs/zero3_bf16_nvme.json)",
        )
    if (zero.optimizer_on != "none" and zero.stage == 0) or (zero.parameters_on != "none" and zero.stage != 3):
        raise RecipeError(
            f"{file} offloads at ZeRO stage {zero.stage}",
            expected="offload_optimizer at stages 1 to 3, offload_param at stage 3: DeepSpeed has them nowhere else",
            mend="use ds_configs/zero3_bf16_offload_parameters.json, or remove them",
        )


def _refuse_inexact_nvme(zero: ZeroSettings, file: str) -> None:
    if zero.precision != "bf16" or zero.prefetch_bucket != 0:
        raise RecipeError(
            f"{file} puts offload_param on NVMe in float32 or with prefetching",
            expected="bf16 enabled and stage3_prefetch_bucket_size 0: otherwise gradients are wrong",
            mend="use ds_configs/zero3_bf16_nvme.json",
        )


def _refuse_folder(parameters: dict[str, Any], engine: EngineConfig, file: str) -> None:
    if "nvme_path" in parameters:
        raise RecipeError(
            f"{file} sets nvme_path",
            expected="engine.nvme_path of the recipe to own it",
            mend="remove it there",
        )
    if engine.nvme_path is None:
        raise RecipeError(
            f"{file} puts offload_param on NVMe and engine.nvme_path is empty",
            expected="a folder on a local NVMe disk, the same path on every host",
            mend="give --engine.nvme_path /path/to/a/folder",
        )
