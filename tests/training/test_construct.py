"""An engine built in shards holds exactly the weights of the plain model, and no rank ever held the whole of it."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from batches_for_tests import small_recipe
from ranks import run_on_ranks

from largede.config.recipe import ModelConfig, Recipe
from largede.errors import ModelError
from largede.models.build import build_dual_encoder, build_structure
from largede.training.construct import build_filled_engine, first_weights, sharding
from largede.training.engine import build_engine
from largede.training.fill import fill_engine


def whole_parameters(engine: Any) -> dict[str, torch.Tensor]:
    import deepspeed

    parameters = dict(engine.module.named_parameters())
    is_cut = engine.zero_optimization_stage() == 3
    with deepspeed.zero.GatheredParameters(list(parameters.values()), enabled=is_cut):
        return {name: p.detach().clone() for name, p in parameters.items()}


def differing(recipe: Recipe) -> list[str]:
    """Names of parameters, and of masters, that are not those of the plain model."""
    from largede.training.slices import flat_groups

    plain = dict(build_dual_encoder(recipe.model).named_parameters())
    engine = build_filled_engine(recipe)
    ours = whole_parameters(engine)
    assert ours.keys() == plain.keys()
    wrong = [name for name, p in plain.items() if not torch.equal(p, ours[name])]
    for group in flat_groups(engine):
        for held in group.slices:
            expected = plain[held.name].detach().flatten()[held.start : held.start + held.length]
            if not torch.equal(held.of(group.flat), expected):
                wrong.append(f"master of {held.name}")
    assert {n: p.requires_grad for n, p in engine.module.named_parameters()} == {
        n: p.requires_grad for n, p in plain.items()
    }
    engine.destroy()
    return wrong


def check_construction(folder: str, backbone: str) -> dict[str, list[str]]:
    cases: dict[str, dict[str, Any]] = {
        "sde": {},
        "ade-fte": {"model__layout": "ade-fte"},
        "ade-spl": {"model__layout": "ade-spl"},
        "layers": {"model__layers": 1},
        "resident": {"engine__parameters": "resident"},
        "folder": {"model__backbone": backbone},
        "folder, ade": {"model__backbone": backbone, "model__layout": "ade", "model__layers": 1},
    }
    found = {}
    for name, settings in cases.items():
        stages = (3,) if "engine__parameters" in settings else (0, 1, 2, 3)
        for stage in stages:
            found[f"{name}, ZeRO-{stage}"] = differing(small_recipe(Path(folder), stage, **settings))
    return found


@pytest.mark.parametrize("world", [1, 2])
def test_a_sharded_model_starts_as_the_plain_one(world: int, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone"
    build_dual_encoder(ModelConfig(backbone="smoke", seed=5)).query_tower.encoder.save_pretrained(
        backbone, max_shard_size="200KB"
    )
    assert (backbone / "model.safetensors.index.json").is_file()
    for answer in run_on_ranks(world, check_construction, tmp_path, str(tmp_path), str(backbone)):
        assert answer == dict.fromkeys(answer, [])


def test_old_weight_files_give_the_same_weights(tmp_path: Path) -> None:
    from largede.models.weights import FreshWeights, PretrainedWeights

    source = build_dual_encoder(ModelConfig(backbone="smoke", seed=5))
    source.query_tower.encoder.config.save_pretrained(tmp_path)
    torch.save(source.query_tower.encoder.half().state_dict(), tmp_path / "pytorch_model.bin")
    config = ModelConfig(backbone=str(tmp_path))
    model = build_structure(config, torch.device("meta"))
    weights = PretrainedWeights(str(tmp_path), FreshWeights(model, 0))
    for name, p in source.named_parameters():
        if "projection" not in name:
            middle = weights.read(name, p.numel() // 3, p.numel() // 2)
            assert torch.equal(middle, p.detach().float().flatten()[p.numel() // 3 :][: p.numel() // 2])


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    from largede.models.weights import FreshWeights, PretrainedWeights

    encoder = build_dual_encoder(ModelConfig(backbone="smoke", layers=1)).query_tower.encoder
    encoder.save_pretrained(tmp_path)
    encoder.config.num_layers = 2
    encoder.config.save_pretrained(tmp_path)
    model = build_structure(ModelConfig(backbone=str(tmp_path)), torch.device("meta"))
    with pytest.raises(ModelError, match=r"no weights for .*block\.1"):
        PretrainedWeights(str(tmp_path), FreshWeights(model, 0))
    with pytest.raises(ModelError, match="layers is 3"):
        build_structure(ModelConfig(backbone="smoke", layers=3))


def peaks_of_construction(folder: str) -> dict[str, float]:
    """What this rank holds, in shares (the float32 model by the ranks), above what it holds once all is imported.

    `modules`: at most, while parameters are made; `engine`: at most, until the engine is filled; `kept`: afterwards.
    """

    def kib(name: str) -> int:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.search(name + r":\s+(\d+) kB", status)[1])  # type: ignore[index]

    recipe = small_recipe(Path(folder), 3, model__backbone=f"{folder}/pretrained", optimizer__name="adafactor")
    build_filled_engine(small_recipe(Path(folder), 3)).destroy()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before = kib("VmRSS")
    model = build_structure(recipe.model, sharding(recipe))
    model_kib = sum(p.ds_numel for p in model.parameters()) * 4 / 1024
    modules = kib("VmHWM") - before
    source = first_weights(model, recipe.model)
    fill_engine(build_engine(model, recipe), source)
    held = {"modules": modules, "engine": kib("VmHWM") - before, "kept": kib("VmRSS") - before}
    share_kib = model_kib / dist.get_world_size()
    return {name: value / share_kib for name, value in held.items()} | {"MiB": model_kib / 1024}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")
def test_no_rank_ever_holds_the_whole_model(tmp_path: Path) -> None:
    """Each keeps a share of parameters, masters, gradients and mapped weight files; nothing grows beyond shares."""
    large = build_dual_encoder(ModelConfig(backbone="gtr-large", layers=8))
    large.query_tower.encoder.save_pretrained(tmp_path / "pretrained", max_shard_size="100MB")
    del large
    for held in run_on_ranks(4, peaks_of_construction, tmp_path, str(tmp_path)):
        print("shares held by one of four ranks:", {name: round(value, 2) for name, value in held.items()})
        assert held["MiB"] > 400
        assert held["modules"] < 3.5, "of four that are the whole model"
        assert held["engine"] < 8
        assert held["engine"] - held["kept"] < 2
