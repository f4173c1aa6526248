"""What only a GPU can show: the step on CUDA, replayed dropout on CUDA, bf16, training and encoding end to end.

Run by `bash tests/gpu/run.sh`; without an NVIDIA GPU every test here is skipped.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_world import MadeWorld

ZERO3 = {"stage": 3, "stage3_param_persistence_threshold": 0, "sub_group_size": 60_000, "reduce_bucket_size": 100_000}


def gradients(folder: Path, config: dict[str, Any], **dotted: Any) -> tuple[float, dict[str, torch.Tensor]]:
    import json

    from batches_for_tests import MadeBatch, small_recipe
    from recording import Recording

    from largede.config.load import with_settings
    from largede.training.construct import build_filled_engine
    from largede.training.gradcache import GradCacheStep
    from largede.training.optimizers import client_optimizer

    path = folder / "ds.json"
    path.write_text(json.dumps({"zero_optimization": ZERO3, **config}))
    # Padded unless a test says otherwise: packed attention has tests of its own beside this file.
    settings = {"engine__deepspeed": str(path), "engine__attention": "padded", **dotted}
    recipe = with_settings(small_recipe(folder), **settings)
    engine = build_filled_engine(recipe, optimizer_type=Recording)
    torch.manual_seed(0)
    report = GradCacheStep(engine, recipe)(MadeBatch(recipe.batch.queries, 3).of_rank(0, 1))
    engine.step()
    found = {n: g.view(held.shape).cpu() for n, (held, g) in client_optimizer(engine).gradients.items()}
    engine.destroy()
    return report.score.loss, found


def worst(ours: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    return max(float((ours[n] - g).norm() / g.norm()) for n, g in truth.items())


def test_float32_step_on_cuda_equals_the_plain_twin_on_the_cpu(tmp_path: Path) -> None:
    from batches_for_tests import MadeBatch, plain_gradients, small_recipe

    recipe = small_recipe(tmp_path)
    truth_loss, truth = plain_gradients(recipe, MadeBatch(recipe.batch.queries, 3))
    loss, ours = gradients(tmp_path, {})
    print(f"float32 on CUDA against the CPU twin: worst gradient {worst(ours, truth):.1e}")
    assert abs(loss - truth_loss) / truth_loss < 1e-5
    # Two devices order their sums differently, and ReLU kinks flip: looser than on one device.
    assert worst(ours, truth) < 1e-3


def test_replayed_dropout_on_cuda_equals_kept_graphs(tmp_path: Path) -> None:
    settings = {"model__dropout": 0.3}
    _, cached = gradients(tmp_path, {}, batch__gradient_cache=True, **settings)
    _, kept = gradients(tmp_path, {}, batch__gradient_cache=False, **settings)
    print(f"dropout replay on CUDA: worst gradient {worst(cached, kept):.1e}")
    assert worst(cached, kept) < 1e-4


def test_bf16_masters_follow_float32(tmp_path: Path) -> None:
    bf16 = {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    settings = {"loss__temperature": 0.1}
    _, low = gradients(tmp_path, bf16, **settings)
    _, high = gradients(tmp_path, {}, **settings)
    cosine = min(float(torch.cosine_similarity(low[n].flatten(), g.flatten(), dim=0)) for n, g in high.items())
    print(f"bf16 against float32: smallest cosine of a gradient {cosine:.4f}")
    assert cosine > 0.95


def test_training_goes_on_from_its_checkpoint(world: MadeWorld, tmp_path: Path) -> None:
    from test_trainer import losses, recipe_for, train_in_process

    train_in_process(recipe_for(world, tmp_path, "run", engine__deepspeed="zero3_bf16.json"))
    found = losses(tmp_path / "run")
    assert found[-1] < found[0]


def test_encoding_on_cuda_equals_the_cpu(world: MadeWorld, tmp_path: Path) -> None:
    from test_model_folder import TEXTS, written

    from largede.models.text_encoder import load_text_encoder

    folder = written(world, tmp_path / "model")
    cpu = load_text_encoder(folder, device="cpu").embed(TEXTS, "passage", 64)
    gpu = load_text_encoder(folder, device="cuda").embed(TEXTS, "passage", 64)
    np.testing.assert_allclose(gpu, cpu, atol=2e-3)
