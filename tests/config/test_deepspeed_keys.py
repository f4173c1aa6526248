"""Which keys a DeepSpeed file may have: the list against DeepSpeed's own fields, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from largede.config.deepspeed import OWNED_BY_RECIPE, read_deepspeed_file, shipped_files
from largede.config.deepspeed_keys import FILE, OFFLOAD_OPTIMIZER, OFFLOAD_PARAM, ZERO
from largede.errors import RecipeError


def names_of(model: Any) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_the_names_are_deepspeeds_own() -> None:
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config
    from deepspeed.runtime.zero import config, offload_config

    assert set(ZERO) <= names_of(config.DeepSpeedZeroConfig)
    assert set(OFFLOAD_OPTIMIZER) <= names_of(offload_config.DeepSpeedZeroOffloadOptimizerConfig)
    assert set(OFFLOAD_PARAM) <= names_of(offload_config.DeepSpeedZeroOffloadParamConfig)
    assert set(FILE["bf16"]) <= names_of(DeepSpeedBF16Config)  # type: ignore[arg-type]


def test_deepspeed_reads_every_top_level_name() -> None:
    """It has no list of them: each must be a string constant, or a plain word, of what it reads its files with."""
    import deepspeed

    folder = Path(deepspeed.__file__).parent
    sources = [*(folder / "runtime").glob("*.py"), *(folder / "runtime" / "swap_tensor").glob("*.py")]
    for part in ("monitor", "profiling", "comm", "utils", "runtime/zero"):
        sources += (folder / part).glob("*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    for name in FILE:
        assert f'"{name}"' in text or f"'{name}'" in text, name


@pytest.mark.parametrize("name", shipped_files())
def test_shipped_files_pass(name: str) -> None:
    assert read_deepspeed_file(name)


def test_keys_that_change_no_gradient_pass(tmp_path: Path) -> None:
    offload = {"offload_optimizer": None, "offload_param": {"device": "none"}}
    sizes = {"reduce_bucket_size": 5e8, "stage3_max_live_parameters": 0, "zero_hpz_partition_size": 1}
    zero = {"stage": 3, "overlap_comm": None, "zero_quantized_gradients": False, **sizes, **offload}
    harmless = {"prescale_gradients": False, "gradient_predivide_factor": 1, "gradient_allreduce_op": "mean"}
    said = {"bf16": {"enabled": True}, "fp16": {"enabled": False, "loss_scale": 0}, "wall_clock_breakdown": True}
    found = read(tmp_path, {"zero_optimization": zero, "tensorboard": {"enabled": False}, **harmless, **said})
    assert found["zero_optimization"]["reduce_bucket_size"] == 5e8


def read(folder: Path, content: Any) -> dict[str, Any]:
    (folder / "ds.json").write_text(json.dumps(content))
    return read_deepspeed_file(str(folder / "ds.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"zero_optimisation": {"stage": 3}}, "unknown key 'zero_optimisation'.*did you mean zero_optimization"),
        ({"bfloat16": {"enabled": True}}, "unknown key 'bfloat16'.*did you mean bf16"),
        ({"sparse_gradients": True}, "unknown key 'sparse_gradients'"),
        ({"zero_optimization": {"prefetch_bucket_size": 1}}, "did you mean stage3_prefetch_bucket_size"),
        (
            {"zero_optimization": {"stage3_module_granularity_threshold": 1}},
            "unknown key 'zero_optimization.stage3_mod",
        ),
        ({"zero_optimization": {"overlap_com": True}}, "unknown key 'zero_optimization.overlap_com'.*overlap_comm"),
        (
            {"zero_optimization": {"offload_param": {"devise": "cpu"}}},
            "unknown key 'zero_optimization.offload_param.devise'.*device",
        ),
        ({"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}}, "unknown key 'bf16.bf16_master"),
        ({"data_types": {"param_dtype": "bf16"}}, "unknown key 'data_types.param_dtype'"),
        ({"gradient_allreduce_op": "sum"}, "gradient_allreduce_op is 'sum'.*mean, .*changes the gradient"),
        ({"prescale_gradients": True}, "prescale_gradients is True.*changes the gradient"),
        ({"gradient_predivide_factor": 2.0}, "gradient_predivide_factor is 2.0.*changes the gradient"),
        ({"communication_data_type": "bf16"}, "communication_data_type is 'bf16'.*changes the gradient"),
        ({"zero_optimization": {"zero_quantized_weights": True}}, "zero_quantized_weights is True"),
        ({"zero_optimization": {"zero_quantized_gradients": True}}, "zero_quantized_gradients is True"),
        ({"zero_optimization": {"zero_quantized_nontrainable_weights": 1}}, "nontrainable_weights is 1"),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, "grad_accum_dtype is 'bf16'.*fp32"),
        ({"torch_autocast": {"enabled": True, "dtype": "float16"}}, "dtype is 'float16'.*bfloat16"),
        ({"torch_autocast": {"enabled": True}}, "torch_autocast without its dtype"),
        (
            {"bf16": {"enabled": True}, "torch_autocast": {"enabled": True, "dtype": "bfloat16"}},
            "bf16 and torch_autocast",
        ),
        ({"zero_optimization": {"stage": True}}, "stage is True"),
        ({"zero_optimization": {"reduce_bucket_size": 0}}, "reduce_bucket_size is 0"),
        ({"zero_optimization": {"reduce_bucket_size": "big"}}, "reduce_bucket_size is 'big'.*whole number"),
        ({"zero_optimization": {"stage3_max_live_parameters": 1.5}}, "max_live_parameters is 1.5"),
        ({"zero_optimization": {"reduce_bucket_size": "auto"}}, "reduce_bucket_size is 'auto'.*Hugging Face"),
        ({"bf16": {"enabled": "auto"}}, "bf16.enabled is 'auto'"),
        ({"fp16": {"enabled": "auto"}}, "fp16.enabled is 'auto'"),
        ({"bf16": {"enabled": "yes"}}, "bf16.enabled is 'yes'.*true or false"),
        ({"zero_optimization": None}, "zero_optimization is None"),
        ({"train_batch_size": "auto"}, r"sets train_batch_size.*batch\.queries of the recipe"),
    ],
)
def test_other_keys_and_values_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        read(tmp_path, content)


@pytest.mark.parametrize("key", sorted(OWNED_BY_RECIPE))
def test_what_the_recipe_owns_is_no_key_of_the_file(key: str) -> None:
    assert key not in FILE


def test_the_list_is_read_without_deepspeed_or_torch() -> None:
    """`largede plan` reads DeepSpeed files too."""
    look = "import sys, largede.config.deepspeed, largede.training.deepspeed_settings, largede.training.rate_factors"
    look += "; sys.exit(bool({'torch', 'deepspeed'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0
