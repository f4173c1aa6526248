"""Every shipped DeepSpeed file takes a step on two ranks, with float32 masters, and sets nothing the recipe owns."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from batches_for_tests import MadeBatch, small_recipe
from ranks import run_on_ranks

from largede.config.batch import BatchPlan
from largede.config.deepspeed import OWNED_BY_RECIPE, find_deepspeed_file
from largede.config.load import with_settings
from largede.errors import RecipeError
from largede.files import write_json
from largede.models.build import build_dual_encoder
from largede.training.engine import build_engine, deepspeed_config
from largede.training.gradcache import GradCacheStep
from largede.training.plan import Machine, predict
from largede.training.slices import flat_groups

SHIPPED = sorted(p.name for p in find_deepspeed_file("zero3.json").parent.glob("*.json"))
NVME = [name for name in SHIPPED if "nvme" in name]


def in_turn(folder: Path, names: list[str], backbone: str) -> dict[str, Any]:
    """Two steps with each file: losses, what a master weight is stored in, how far it moved, what is offloaded."""
    found = {}
    for name in names:
        file = for_two_ranks(folder, name) if name in NVME or "hpz" in name else name
        settings = {"engine__deepspeed": str(file), "optimizer__learning_rate": 0.01, "model__layout": "ade"}
        settings["model__backbone"] = backbone
        recipe = with_settings(small_recipe(folder), **settings, engine__nvme_path=str(folder))
        engine = build_engine(build_dual_encoder(recipe.model), recipe)
        groups = flat_groups(engine)
        before = groups[0].flat.clone()
        step, losses = GradCacheStep(engine, recipe), []
        for number in range(2):
            batch = MadeBatch(recipe.batch.queries, 2, seed=number)
            losses.append(step(batch.of_rank(dist.get_rank(), dist.get_world_size())).score.loss)
            copies = sum(getattr(p, "ds_secondary_tensor", None) is not None for p in engine.module.parameters())
            engine.step()
        zero = engine.optimizer
        found[name] = {
            "losses": losses,
            "dtype": str(groups[0].flat.dtype),
            "moved": float((groups[0].flat - before).abs().max()),
            "optimizer offloaded": bool(
                getattr(zero, "offload_optimizer", False) or getattr(zero, "cpu_offload", False)
            ),
            "parameters offloaded": bool(getattr(zero, "offload_param", False)),
            "on disk": sum(p.stat().st_size for p in folder.rglob("*.swp")),
            "second copies": copies,
        }
        engine.destroy()
    return found


def for_two_ranks(folder: Path, name: str) -> Path:
    """The file with pinned buffers for a small model (the shipped ones take 1.6 GB a rank), and copies in two ranks."""
    config = json.loads(find_deepspeed_file(name).read_text())
    zero = config["zero_optimization"]
    if "zero_hpz_partition_size" in zero:
        zero["zero_hpz_partition_size"] = 2
    if zero.get("offload_param", {}).get("device") == "nvme":
        zero["offload_param"]["buffer_size"] = 1_100_000
    write_json(folder / name, config)
    return folder / name


def one_step_each(folder: str, names: list[str], backbone: str = "smoke") -> dict[str, Any]:
    return in_turn(Path(folder), names, backbone)


def test_every_file_takes_steps(tmp_path: Path) -> None:
    # hpZ last: DeepSpeed keeps its groups for the life of a process.
    names = sorted([n for n in SHIPPED if n not in NVME], key=lambda name: "hpz" in name)
    found = run_on_ranks(2, one_step_each, tmp_path, str(tmp_path), names)[0]
    assert set(found) >= {"zero1.json", "zero2.json", "zero3.json", "zero3_bf16.json", "zero3_bf16_hpz8.json"}
    exact = found["zero3.json"]["losses"]
    for name, facts in found.items():
        for loss, true in zip(facts["losses"], exact, strict=True):
            assert abs(loss - true) < (0.5 if "bf16" in name else 1e-4), (name, loss, true)
        assert facts["dtype"] == "torch.float32", name
        assert 0 < facts["moved"] < 1, name
        assert facts["optimizer offloaded"] == ("offload" in name), name
        assert facts["parameters offloaded"] == ("parameters" in name), name
        assert (facts["second copies"] > 0) == ("hpz" in name), name
    for name in ("zero3_bf16_offload.json", "zero3_bf16_offload_parameters.json", "zero3_bf16_hpz8.json"):
        assert found[name]["losses"] == found["zero3_bf16.json"]["losses"], name


def has_async_io() -> bool:
    """DeepSpeed's disk operator is built already, or there is what it is built from (minutes, the first time)."""
    from deepspeed.ops.op_builder import AsyncIOBuilder

    return bool(AsyncIOBuilder().is_compatible(verbose=False)) and shutil.which("g++") is not None


@pytest.mark.slow
def test_parameters_on_nvme_train_like_parameters_in_memory(tmp_path: Path) -> None:
    if not has_async_io():
        pytest.skip("libaio-dev and g++ are needed for DeepSpeed's async_io operator")
    if not os.environ.get("LARGEDE_TEST_NVME"):
        pytest.skip("builds DeepSpeed's async_io operator, which takes minutes: set LARGEDE_TEST_NVME=1")
    names = ["zero3_bf16_offload_parameters.json", *NVME]
    # DeepSpeed leaves what is smaller than 1 MiB in memory, so the smoke model would not touch the disk.
    found = run_on_ranks(2, one_step_each, tmp_path, str(tmp_path), names, "quickstart")[0]
    for name in NVME:
        assert found[name]["losses"] == found[names[0]]["losses"]
        assert found[name]["on disk"] > 0, "nothing was written to the disk"


@pytest.mark.parametrize(
    ("zero", "settings", "message"),
    [
        ({"offload_optimizer": {"device": "nvme"}}, {}, "puts offload_optimizer on NVMe"),
        ({"offload_optimizer": {"device": "cpu", "ratio": 0.5}}, {}, "sets ratio"),
        ({"offload_param": {"device": "nvme"}, "stage3_prefetch_bucket_size": 0}, {}, "engine.nvme_path is empty"),
        ({"offload_param": {"device": "nvme"}}, {"engine__nvme_path": "/disk"}, "with prefetching"),
        (
            {"offload_param": {"device": "nvme", "nvme_path": "/a"}, "stage3_prefetch_bucket_size": 0},
            {"engine__nvme_path": "/disk"},
            "sets nvme_path",
        ),
    ],
)
def test_settings_that_would_train_wrongly_are_refused(
    zero: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"bf16": {"enabled": True}, "zero_optimization": {"stage": 3, **zero}}))
    recipe = with_settings(small_recipe(tmp_path), engine__deepspeed=str(path), **settings)
    with pytest.raises(RecipeError, match=message):
        deepspeed_config(recipe, BatchPlan(recipe.batch.queries, 1))


def test_the_folder_on_nvme_comes_from_the_recipe(tmp_path: Path) -> None:
    recipe = with_settings(small_recipe(tmp_path), engine__deepspeed="zero3_bf16_nvme.json", engine__nvme_path="/disk")
    config = deepspeed_config(recipe, BatchPlan(recipe.batch.queries, 1))
    assert config["zero_optimization"]["offload_param"]["nvme_path"] == "/disk"


@pytest.mark.parametrize("key", sorted(OWNED_BY_RECIPE))
def test_a_file_that_sets_what_the_recipe_owns_is_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({key: 1}))
    recipe = with_settings(small_recipe(tmp_path), engine__deepspeed=str(path))
    with pytest.raises(RecipeError, match=f"sets {key}"):
        deepspeed_config(recipe, BatchPlan(recipe.batch.queries, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"zero_optimization": {"stage": 5}}, "stage is 5"),
        ({"zero_optimization": {"stage": "auto"}}, "stage is 'auto'"),
        ({"zero_optimization": [3]}, "zero_optimization is"),
        ({"zero_optimization": {"stage": 3, "offload_optimizer": True}}, "offload_optimizer is True"),
        ({"fp16": {"enabled": True}}, "enables fp16"),
        ([1], "holds no object"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_training_and_by_the_plan(
    content: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(content))
    recipe = with_settings(small_recipe(tmp_path), engine__deepspeed=str(path))
    with pytest.raises(RecipeError, match=message):
        deepspeed_config(recipe, BatchPlan(recipe.batch.queries, 1))
    with pytest.raises(RecipeError, match=message):
        predict(recipe, Machine(gpus=1))


BF16 = {"bf16": {"enabled": True}}


@pytest.mark.parametrize(
    ("content", "settings", "ranks", "message"),
    [
        (BF16, {}, 1, "bf16 parameters at ZeRO stage 0"),
        ({**BF16, "zero_optimization": {"stage": 1}}, {}, 2, "(?s)bf16 parameters at ZeRO stage 1.*torch_autocast"),
        ({"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}}, {}, 1, "copies within 8 ranks.* are 1"),
        ({"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}}, {}, 12, "copies within 8 ranks.* are 12"),
        ({}, {"engine__gradient_reduction": "coalesced"}, 1, "gradient_reduction is coalesced"),
        ({"zero_optimization": {"stage": 2}}, {"engine__parameters": "resident"}, 2, "parameters is resident"),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}},
            {"engine__parameters": "resident"},
            2,
            "parameters is resident",
        ),
        ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, {}, 1, "offloads at ZeRO stage 0"),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, {}, 1, "offloads at ZeRO stage 2"),
        ({"zero_optimisation": {"stage": 3}}, {}, 1, "unknown key"),
        ({"gradient_allreduce_op": "sum"}, {}, 2, "gradient_allreduce_op is 'sum'"),
        ({"zero_optimization": {"stage": 1, "overlap_comm": True}}, {}, 1, "overlap_comm at ZeRO stage 1"),
    ],
)
def test_training_and_the_plan_refuse_in_the_same_words(
    content: Any, settings: dict[str, Any], ranks: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    write_json(tmp_path / "ds.json", content)
    recipe = with_settings(small_recipe(tmp_path), engine__deepspeed=str(tmp_path / "ds.json"), **settings)
    with pytest.raises(RecipeError, match=message) as by_training:
        deepspeed_config(recipe, BatchPlan(recipe.batch.queries, ranks))
    with pytest.raises(RecipeError) as by_the_plan:
        predict(recipe, Machine(gpus=ranks))
    assert str(by_training.value) == str(by_the_plan.value)


def test_copies_within_a_node_do_not_span_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = with_settings(small_recipe(tmp_path), engine__deepspeed="zero3_bf16_hpz8.json", batch__queries=16)
    plan = BatchPlan(recipe.batch.queries, 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert deepspeed_config(recipe, plan)["zero_optimization"]["zero_hpz_partition_size"] == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(RecipeError, match="16, 4 on a node"):
        deepspeed_config(recipe, plan)
    with pytest.raises(RecipeError, match="16, 4 on a node"):
        predict(recipe, Machine(gpus=16, nodes=4))


@pytest.mark.parametrize("said", [{}, {"data_types": {}}, {"data_types": {"grad_accum_dtype": None}}])
def test_bf16_parameters_have_their_gradients_summed_in_float32(said: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "ds.json", {**BF16, "zero_optimization": {"stage": 2}, **said})
    recipe = with_settings(small_recipe(tmp_path), engine__deepspeed=str(tmp_path / "ds.json"))
    config = deepspeed_config(recipe, BatchPlan(recipe.batch.queries, 1))
    assert config["data_types"] == {"grad_accum_dtype": "fp32"}


def test_resident_parameters_are_below_the_threshold(tmp_path: Path) -> None:
    recipe = with_settings(small_recipe(tmp_path), engine__parameters="resident")
    zero = deepspeed_config(recipe, BatchPlan(recipe.batch.queries, 1))["zero_optimization"]
    assert zero["stage3_param_persistence_threshold"] > 10**12


def test_clipping_is_off_unless_asked_for(tmp_path: Path) -> None:
    """DeepSpeed clips at 1.0 when nothing is said."""
    recipe = small_recipe(tmp_path)
    plan = BatchPlan(recipe.batch.queries, 2)
    assert deepspeed_config(recipe, plan)["gradient_clipping"] == 0.0
    assert deepspeed_config(with_settings(recipe, optimizer__clip_norm=0.5), plan)["gradient_clipping"] == 0.5


def test_a_file_that_is_not_there_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="zero3_bf16.json"):
        find_deepspeed_file("zero9.json")
