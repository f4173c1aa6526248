"""Offloading on a GPU: the same steps as without it, masters in host memory, sums over NCCL. Not run yet.

Run by `bash tests/gpu/run.sh`; without an NVIDIA GPU every test here is skipped.
"""

from pathlib import Path

import pytest


def three_steps(folder: Path, name: str) -> tuple[list[float], str]:
    """Losses with a shipped file, and the device of the master weights."""
    from batches_for_tests import MadeBatch, small_recipe

    from largede.config.load import with_settings
    from largede.models.build import build_dual_encoder
    from largede.training.engine import build_engine
    from largede.training.gradcache import GradCacheStep
    from largede.training.slices import flat_groups

    recipe = with_settings(small_recipe(folder), engine__deepspeed=name, model__layout="ade")
    engine = build_engine(build_dual_encoder(recipe.model), recipe)
    step, losses = GradCacheStep(engine, recipe), []
    for number in range(3):
        losses.append(step(MadeBatch(recipe.batch.queries, 2, seed=number).of_rank(0, 1)).score.loss)
        engine.step()
    device = flat_groups(engine)[0].flat.device.type
    engine.destroy()
    return losses, device


@pytest.mark.parametrize(
    ("plain", "offloaded"),
    [
        ("zero2_bf16.json", "zero2_bf16_offload.json"),
        ("zero3_bf16.json", "zero3_bf16_offload.json"),
        ("zero3_bf16.json", "zero3_bf16_offload_parameters.json"),
    ],
)
def test_offloaded_steps_equal_those_that_are_not(plain: str, offloaded: str, tmp_path: Path) -> None:
    truth, there = three_steps(tmp_path, plain)
    found, here = three_steps(tmp_path, offloaded)
    print(f"{offloaded}: losses {found}, without offload {truth}")
    assert (there, here) == ("cuda", "cpu")
    # Host and GPU round their sums differently, and bf16 rounds what follows from it.
    assert found == pytest.approx(truth, rel=2e-2)
