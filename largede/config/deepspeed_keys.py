"""Which keys a DeepSpeed file may have: those that change speed, memory, precision or logging, not what is learned.

DeepSpeed is silent about keys it does not know at the top level, so a file with `zero_optimisation` would train without
ZeRO; inside `zero_optimization` it refuses them with a traceback; and some that it knows change the gradient. Hence the
names are held here, without importing DeepSpeed, and a test holds them against DeepSpeed's own fields.

The switches of `zero_optimization` were tried once, by hand, at DeepSpeed 0.19.8 on two CPU ranks, one at a time, two
towers in float32, three steps: gradients were those of the plain twin. `stage3_module_granularity_threshold` ended in a
traceback there and is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from largede.config.load import refuse_unknown
from largede.errors import RecipeError


@dataclass(frozen=True)
class Kind:
    """What a key takes, in words for a message and as a check."""

    said: str
    takes: Callable[[Any], bool]


Keys = Mapping[str, "Kind | Keys"]


def one_of(*values: Any, said: str = "") -> Kind:
    """One of `values`, True being no number."""
    words = ", ".join("null" if value is None else str(value).lower() for value in values)
    return Kind(said or f"one of {words}", lambda given: any(_equal(given, value) for value in values))


def only(value: Any) -> Kind:
    """A key that would change the gradient, at the value that does not."""
    word = "null" if value is None else str(value).lower()
    return one_of(value, said=f"{word}, as without the key: anything else changes the gradient")


def _equal(given: Any, value: Any) -> bool:
    return given == value and isinstance(given, bool) == isinstance(value, bool)


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)


def _is_count(given: Any) -> bool:
    """JSON's 5e8 is a float and a count."""
    return _is_number(given) and given >= 0 and (isinstance(given, int) or given.is_integer())


SWITCH = Kind("true or false", lambda given: isinstance(given, bool))
COUNT = Kind("a whole number, zero or more", _is_count)
SIZE = Kind("a whole number above zero", lambda given: _is_count(given) and given > 0)
SHARE = Kind("a number from 0 to 1", lambda given: _is_number(given) and 0 <= given <= 1)
TEXT = Kind("text", lambda given: isinstance(given, str))
NAMES = Kind("a list of names", lambda given: isinstance(given, list) and all(isinstance(n, str) for n in given))
PART = Kind("an object of settings", lambda given: isinstance(given, dict))


OFFLOAD_OPTIMIZER: Keys = {
    "device": one_of("none", "cpu", "nvme"),
    "pin_memory": SWITCH,
    "buffer_count": COUNT,
    "nvme_path": TEXT,
    "ratio": SHARE,
    "super_offload": SWITCH,
}
OFFLOAD_PARAM: Keys = {
    "device": one_of("none", "cpu", "nvme"),
    "pin_memory": SWITCH,
    "buffer_count": COUNT,
    "buffer_size": COUNT,
    "max_in_cpu": COUNT,
    "nvme_path": TEXT,
}
ZERO: Keys = {
    "stage": one_of(0, 1, 2, 3),
    "contiguous_gradients": SWITCH,
    "overlap_comm": one_of(True, False, None),
    "reduce_scatter": SWITCH,
    "reduce_bucket_size": SIZE,
    "use_multi_rank_bucket_allreduce": SWITCH,
    "allgather_partitions": SWITCH,
    "allgather_bucket_size": SIZE,
    "round_robin_gradients": SWITCH,
    "sub_group_size": SIZE,
    "offload_optimizer": OFFLOAD_OPTIMIZER,
    "offload_param": OFFLOAD_PARAM,
    "stage3_prefetch_bucket_size": COUNT,
    "stage3_param_persistence_threshold": COUNT,
    "stage3_model_persistence_threshold": COUNT,
    "stage3_max_live_parameters": COUNT,
    "stage3_max_reuse_distance": COUNT,
    "stage3_use_all_reduce_for_fetch_params": SWITCH,
    "stage3_allgather_sequential": SWITCH,
    "stage3_gather_16bit_weights_on_model_save": SWITCH,
    "zero_hpz_partition_size": COUNT,
    "zero_quantized_weights": only(False),
    "zero_quantized_nontrainable_weights": only(False),
    "zero_quantized_gradients": only(False),
    "log_trace_cache_warnings": SWITCH,
}
FILE: Keys = {
    "zero_optimization": ZERO,
    "bf16": {"enabled": SWITCH},
    "fp16": PART,
    "torch_autocast": {
        "enabled": SWITCH,
        "dtype": one_of("bfloat16", "bf16", said="bfloat16: T5's feed-forward overflows in float16"),
        "lower_precision_safe_modules": NAMES,
    },
    "data_types": {
        "grad_accum_dtype": one_of("fp32", None, said="fp32: in bf16 the sum over many chunks is rounded at each"),
    },
    "gradient_allreduce_op": only("mean"),
    "prescale_gradients": only(False),
    "gradient_predivide_factor": only(1.0),
    "communication_data_type": only(None),
    "aio": PART,
    "disable_python_gc": SWITCH,
    "wall_clock_breakdown": SWITCH,
    "memory_breakdown": SWITCH,
    "dump_state": SWITCH,
    "timers": PART,
    "flops_profiler": PART,
    "comms_logger": PART,
    "tensorboard": PART,
    "wandb": PART,
    "csv_monitor": PART,
    "comet": PART,
}
MAY_BE_NULL = ("zero_optimization.offload_optimizer", "zero_optimization.offload_param")


def refuse_keys(part: Mapping[str, Any], file: str, keys: Keys = FILE, prefix: str = "") -> None:
    """Refuse a key that is not in `keys`, with the nearest that is, and a value that its key does not take.

    Raises:
        RecipeError: also for "auto", anywhere.
    """
    refuse_unknown(part, keys, file, prefix)
    for key, value in part.items():
        name, kind = f"{prefix}.{key}" if prefix else key, keys[key]
        _refuse_auto(value, file, name)
        if isinstance(kind, Kind):
            _refuse_value(value, kind, file, name)
        elif value is not None or name not in MAY_BE_NULL:
            _refuse_value(value, PART, file, name)
            refuse_keys(value, file, kind, name)


def _refuse_value(value: Any, kind: Kind, file: str, name: str) -> None:
    if not kind.takes(value):
        raise RecipeError(f"{file}: {name} is {value!r}", expected=kind.said, mend=f"mend {name} there, or remove it")


def _refuse_auto(value: Any, file: str, name: str) -> None:
    if value == "auto":
        raise RecipeError(
            f"{file}: {name} is 'auto'",
            expected="the value itself: 'auto' is filled in by Hugging Face's Trainer only",
            mend=f"write the value of {name}, or remove it",
        )
    if isinstance(value, dict):
        for key, held in value.items():
            _refuse_auto(held, file, f"{name}.{key}")
