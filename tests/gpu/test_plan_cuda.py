"""Allocated bytes on a GPU beside the plan's, from Base to XXL, packed and padded. `pytest -s` prints the table.

Run by `bash tests/gpu/run.sh`; without an NVIDIA GPU every test here is skipped, and a size that the plan says will not
fit on this GPU is skipped too.
"""

import pytest
import torch

from largede.config.load import load_recipe
from largede.training.plan import Machine, predict
from largede.training.plan.machine import GIB

TOLERANCE = 0.15


@pytest.mark.parametrize("attention", ["packed", "padded"])
@pytest.mark.parametrize("size", ["base", "large", "xl", "xxl"])
def test_allocated_bytes_are_the_predicted_ones(size: str, attention: str) -> None:
    """The shipped recipe of each size with fresh weights, 256 pairs at the limits; the second step's peak."""
    from measured_step import longest_batch

    from largede.training.construct import build_filled_engine
    from largede.training.gradcache import GradCacheStep

    settings = ["--model.backbone", f"gtr-{size}", "--batch.queries", "256", "--engine.attention", attention]
    settings += ["--engine.activation_checkpointing", "true", "--batch.chunk_tokens", "16384"]
    recipe = load_recipe(f"gtr-{size}-pretrain", [*settings, "--batch.no_grad_chunk_tokens", "16384"])
    gpu_gib = torch.cuda.get_device_properties(0).total_memory / GIB
    plan = predict(recipe, Machine(gpus=1, gpu_gib=gpu_gib))
    if not plan.fits:
        pytest.skip(f"the plan needs {plan.peak_bytes / GIB:.0f} GiB of {gpu_gib:.0f}")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    engine = build_filled_engine(recipe)
    step, batch = GradCacheStep(engine, recipe), longest_batch(recipe)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        report = step(batch)
        engine.step()
    peak = torch.cuda.max_memory_allocated() - before
    print(
        f"| {size}, {attention} | {plan.peak_bytes / GIB:.2f} / {peak / GIB:.2f} GiB ({plan.peak_bytes / peak:.2f}) | "
        f"{torch.cuda.get_device_name()} | reserved {torch.cuda.max_memory_reserved() / GIB:.2f} GiB |"
    )
    del report, step
    engine.destroy()
    del engine
    torch.cuda.empty_cache()
    assert abs(plan.peak_bytes / peak - 1) < TOLERANCE
