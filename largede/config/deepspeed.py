"""The DeepSpeed JSON file that a recipe names: where it is, and what it says, as far as others than DeepSpeed ask.

Nothing here imports DeepSpeed or torch: `largede plan` reads these files too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from largede.config.deepspeed_keys import refuse_keys
from largede.errors import RecipeError

OWNED_BY_RECIPE = {
    "train_batch_size": "batch.queries",
    "train_micro_batch_size_per_gpu": "batch.queries",
    "gradient_accumulation_steps": "batch.chunk_tokens",
    "optimizer": "optimizer.name",
    "scheduler": "optimizer.schedule",
    "gradient_clipping": "optimizer.clip_norm",
    "zero_allow_untested_optimizer": "optimizer.name",
    "zero_force_ds_cpu_optimizer": "optimizer.name",
    "activation_checkpointing": "engine.activation_checkpointing",
    "steps_per_print": "run.log_every",
}

Precision = Literal["float32", "autocast", "bf16"]


def find_deepspeed_file(name: str) -> Path:
    """A path as given, or a file of ds_configs/."""
    if Path(name).is_file():
        return Path(name)
    shipped = Path(str(resources.files("ds_configs")))
    if Path(name).parent in (Path("."), Path("ds_configs")) and (shipped / Path(name).name).is_file():
        return shipped / Path(name).name
    raise RecipeError(
        f"engine.deepspeed {name!r} is no file",
        expected="a path, or one of " + ", ".join(shipped_files()),
        mend="check the name",
    )


def shipped_files() -> list[str]:
    """Names of the files of ds_configs/."""
    return sorted(p.name for p in Path(str(resources.files("ds_configs"))).glob("*.json"))


def read_deepspeed_file(name: str) -> dict[str, Any]:
    """The JSON object of the file. Raises RecipeError when there is none."""
    path = find_deepspeed_file(name)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"{path} is not JSON: {error}", expected="a DeepSpeed JSON file", mend="mend it") from None
    if not isinstance(config, dict):
        raise RecipeError(f"{path} holds no object", expected="a DeepSpeed JSON file", mend="mend it")
    refuse_unusable(config, path.name)
    return config


def refuse_unusable(config: dict[str, Any], file: str) -> None:
    """What neither the engine nor a plan can work with, whatever the recipe.

    Raises:
        RecipeError: a setting the recipe owns, one that is not known or changes what is learned, a value that its key
            does not take, or a precision that T5 does not train in.
    """
    for key, owner in OWNED_BY_RECIPE.items():
        if key in config:
            raise RecipeError(
                f"{file} sets {key}", expected=f"{owner} of the recipe to own it", mend=f"remove {key} there"
            )
    refuse_keys(config, file)
    _refuse_precision(config, file)


def _refuse_precision(config: Mapping[str, Any], file: str) -> None:
    if config.get("fp16", {}).get("enabled"):
        raise RecipeError(
            f"{file} enables fp16",
            expected="bf16 or float32: T5's feed-forward overflows in fp16",
            mend="use a *_bf16.json file of ds_configs/",
        )
    autocast = config.get("torch_autocast", {})
    if autocast.get("enabled") and config.get("bf16", {}).get("enabled"):
        raise RecipeError(
            f"{file} enables bf16 and torch_autocast",
            expected="parameters in bf16, or in float32 and cast for each use",
            mend="remove one of the two",
        )
    if autocast.get("enabled") and "dtype" not in autocast:
        raise RecipeError(
            f"{file} enables torch_autocast without its dtype",
            expected="bfloat16: without it torch takes float16 on a GPU, in which T5's feed-forward overflows",
            mend='add "dtype": "bfloat16" to torch_autocast there',
        )


@dataclass(frozen=True)
class ZeroSettings:
    """What a DeepSpeed file says about memory and traffic; sizes count elements. Defaults are DeepSpeed 0.19's own."""

    stage: int = 0
    precision: Precision = "float32"
    reduce_bucket: int = 500_000_000
    prefetch_bucket: int = 50_000_000
    persistence_threshold: int = 100_000
    max_reuse_distance: int = 1_000_000_000
    sub_group: int = 1_000_000_000
    contiguous_gradients: bool = True
    overlap_comm: bool = False
    hpz: int = 1
    optimizer_on: str = "none"
    parameters_on: str = "none"

    @property
    def parameter_bytes(self) -> int:
        """Of one parameter as the model computes with it; autocast keeps float32 and casts for each use."""
        return 2 if self.precision == "bf16" else 4


def zero_settings(config: Mapping[str, Any]) -> ZeroSettings:
    zero = config.get("zero_optimization") or {}
    stage = int(zero.get("stage", 0))
    precision: Precision = "float32"
    if (config.get("bf16") or {}).get("enabled"):
        precision = "bf16"
    elif (config.get("torch_autocast") or {}).get("enabled"):
        precision = "autocast"
    overlap = zero.get("overlap_comm")
    return ZeroSettings(
        stage=stage,
        precision=precision,
        reduce_bucket=int(zero.get("reduce_bucket_size", ZeroSettings.reduce_bucket)),
        prefetch_bucket=int(zero.get("stage3_prefetch_bucket_size", ZeroSettings.prefetch_bucket)),
        persistence_threshold=int(zero.get("stage3_param_persistence_threshold", ZeroSettings.persistence_threshold)),
        max_reuse_distance=int(zero.get("stage3_max_reuse_distance", ZeroSettings.max_reuse_distance)),
        sub_group=int(zero.get("sub_group_size", ZeroSettings.sub_group)),
        contiguous_gradients=bool(zero.get("contiguous_gradients", True)),
        overlap_comm=stage == 3 if overlap is None else bool(overlap),
        hpz=int(zero.get("zero_hpz_partition_size", 1)),
        optimizer_on=str((zero.get("offload_optimizer") or {}).get("device", "none")),
        parameters_on=str((zero.get("offload_param") or {}).get("device", "none")),
    )
