"""The arithmetic of the plan: shapes, memory, time, advice, and the command."""

import json
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from largede.config.batch import BatchPlan
from largede.config.load import find_recipe, load_recipe, with_settings
from largede.config.recipe import Layout, ModelConfig, Recipe
from largede.errors import LargedeError, MachineError, ModelError, RecipeError
from largede.files import write_json
from largede.models.presets import KNOWN_BACKBONES, PRESETS
from largede.training.plan import Machine, predict
from largede.training.plan.advice import advise
from largede.training.plan.duration import Traffic, arithmetic, forward_flops, mean_sides
from largede.training.plan.machine import GIB
from largede.training.plan.memory import KINDS, MOMENTS
from largede.training.plan.shape import encoder_weights, model_shape

SHIPPED = sorted(p.stem for p in find_recipe("quickstart").parent.glob("*.yaml"))
PUBLISHED_MILLIONS = {"gtr-base": 110, "gtr-large": 335, "gtr-xl": 1240, "gtr-xxl": 4870}


def recipe(**dotted: Any) -> Recipe:
    """GTR-Base in bf16 at ZeRO-3."""
    return with_settings(Recipe(), **{"engine__deepspeed": "zero3_bf16.json", **dotted})


@pytest.mark.parametrize(("preset", "millions"), PUBLISHED_MILLIONS.items())
def test_published_parameter_counts(preset: str, millions: int) -> None:
    counted = sum(weight.numel for weight in encoder_weights(PRESETS[preset]))
    assert abs(counted / 1e6 / millions - 1) < 0.02


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_weights_are_those_of_the_model(layout: Any, feed_forward: str, tmp_path: Path) -> None:
    from largede.models.build import build_structure, t5_config
    from largede.training.optimizers import parameter_groups

    shape = PRESETS["smoke"]
    t5_config(type(shape)(**{**vars(shape), "feed_forward": feed_forward})).save_pretrained(tmp_path)
    config = ModelConfig(backbone=str(tmp_path), layout=layout, layers=1, embedding_dim=96)
    with torch.device("meta"):
        model = build_structure(config)
    planned = model_shape(config)
    assert {n: w.shape for w in planned.weights for n in w.names} == {
        n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)
    }
    assert len(planned.weights) == len(list(model.parameters()))
    choices: list[dict[str, float]] = [{}, {"layer_norm": 0.0, "projection": 3.0}, {"wo": 2.0, "block": 0.0}]
    for factors in [*choices, {"passage_tower": 0.0}] if layout != "sde" else choices:
        frozen = model_shape(config, factors)
        parameter_groups(model, factors)
        assert frozen.trained == sum(p.numel() for p in model.parameters() if p.requires_grad), factors
        model.requires_grad_(True)
        if layout == "ade-fte":
            model.query_tower.encoder.get_input_embeddings().requires_grad_(False)


@pytest.mark.parametrize(
    "factors", [{"proyection": 2.0}, {"encoder": 0.0, "projection": 0.0}, {"tower": 1.0, "wo": 2.0}]
)
def test_rate_factors_are_refused_as_by_the_optimizer(factors: dict[str, float]) -> None:
    from largede.models.build import build_structure
    from largede.training.optimizers import parameter_groups

    config = ModelConfig(backbone="smoke", layout="ade")
    with torch.device("meta"), pytest.raises(RecipeError) as by_the_optimizer:
        parameter_groups(build_structure(config), factors)
    with pytest.raises(RecipeError) as by_the_plan:
        model_shape(config, factors)
    assert str(by_the_optimizer.value) == str(by_the_plan.value)


def test_unknown_shapes_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "bert", "hidden_size": 768})
    for backbone in ("no/such-model", str(tmp_path), str(tmp_path / "nothing")):
        with pytest.raises(ModelError, match="shape of backbone"):
            model_shape(ModelConfig(backbone=backbone))
    with pytest.raises(ModelError, match=r"model\.layers is 13"):
        model_shape(ModelConfig(backbone="gtr-base", layers=13))
    assert all(preset in PRESETS for preset in KNOWN_BACKBONES.values())


def test_xxl_on_one_gpu_by_hand() -> None:
    """4.87 B parameters: bf16 copies of 2 bytes, masters and gradients of 4, almost no moments."""
    plan = predict(load_recipe("gtr-xxl-pretrain"), Machine(gpus=1, gpu_gib=80))
    n = 4.866e9
    assert plan.memory["parameters"] == pytest.approx(2 * n, rel=0.01)
    assert plan.memory["gradients"] == pytest.approx(4 * n, rel=0.01)
    assert plan.memory["optimizer"] == pytest.approx(4 * n, rel=0.01)
    assert plan.moments["optimizer"]["gradients"] > 4 * (n + 1e9), "the sub-group that is stepped is copied"
    assert plan.memory["gathered"] == 0
    assert plan.fits and plan.peak_bytes / GIB > 45


def test_slices_shrink_with_the_ranks_and_residency_costs_a_copy() -> None:
    one, many = (predict(recipe(), Machine(gpus=gpus)) for gpus in (1, 16))
    assert many.memory["optimizer"] == pytest.approx(one.memory["optimizer"] / 16, rel=0.05)
    resident = predict(recipe(engine__parameters="resident"), Machine(gpus=16))
    whole = 2 * resident.setup.model.parameters
    assert resident.moments["scoring"]["gathered"] == whole
    assert resident.time.gathers_s < many.time.gathers_s


def test_adamw_keeps_two_numbers_and_adafactor_almost_none() -> None:
    n = predict(recipe(), Machine(gpus=1)).setup.model.trained
    adafactor, adamw = (
        predict(recipe(optimizer__name=name), Machine(gpus=1)).moments["scoring"]["optimizer"]
        for name in ("adafactor", "adamw")
    )
    assert 4 * n < adafactor < 4.05 * n
    assert adamw == 12 * n


def test_padded_attention_pays_for_a_bias_per_layer() -> None:
    """GTR-Base, 128 texts of 512 tokens: 12 layers of 128 x 12 x 512 x 512 numbers in bf16."""
    packed, padded = (
        predict(recipe(engine__attention=kind, batch__chunk_tokens=65536), Machine(gpus=1))
        for kind in ("packed", "padded")
    )
    biases = 12 * 2 * 128 * 12 * 512 * 512
    difference = padded.moments["backward"]["activations"] - packed.moments["backward"]["activations"]
    assert difference == pytest.approx(biases, rel=0.15)


def test_offloading_moves_bytes_to_the_host(tmp_path: Path) -> None:
    zero = {
        "stage": 3,
        "reduce_bucket_size": 50_000_000,
        **{f"offload_{x}": {"device": "cpu"} for x in ("optimizer", "param")},
    }
    path = tmp_path / "offload.json"
    write_json(path, {"bf16": {"enabled": True}, "zero_optimization": zero})
    here, there = predict(recipe(), Machine(gpus=4)), predict(recipe(engine__deepspeed=str(path)), Machine(gpus=4))
    n = there.setup.model.trained
    assert there.memory["parameters"] == 0 and there.moments["scoring"]["optimizer"] == 0
    assert there.peak_bytes < here.peak_bytes
    offloaded, copy = (4 + 2 * 4 + 2) * n, 4 * n
    assert there.host_bytes_per_node == pytest.approx(offloaded + copy, rel=0.02)
    at_rest = predict(recipe(engine__deepspeed=str(path), run__save_async=False), Machine(gpus=4))
    assert at_rest.host_bytes_per_node == pytest.approx(offloaded, rel=0.02)
    assert not predict(recipe(engine__deepspeed=str(path)), Machine(gpus=4, host_gib=1)).fits
    assert "main memory" in "\n".join(there.memory_lines())


def test_saving_beside_the_run_takes_main_memory_for_a_copy() -> None:
    per_node = {
        name: predict(recipe(optimizer__name=name), Machine(gpus=16, nodes=2)) for name in ("adafactor", "adamw")
    }
    n = per_node["adamw"].setup.model.trained
    assert per_node["adafactor"].host_bytes_per_node == pytest.approx(4 * n / 2, rel=0.001)
    assert per_node["adamw"].host_bytes_per_node == pytest.approx(12 * n / 2, rel=0.001)
    assert not predict(recipe(), Machine(gpus=1, host_gib=0.1)).fits
    assert predict(recipe(run__save_async=False), Machine(gpus=1, host_gib=0.1)).fits


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("machine", [Machine(gpus=1), Machine(gpus=8), Machine(gpus=64, nodes=8)], ids=["1", "8", "64"])
def test_every_shipped_recipe_has_a_plan_and_fits(name: str, machine: Machine) -> None:
    shipped = load_recipe(name)
    if machine.gpus > shipped.batch.queries:
        pytest.skip("a batch smaller than the ranks")
    plan = predict(shipped, machine)
    assert tuple(plan.moments) == MOMENTS and tuple(plan.memory) == KINDS
    assert all(count >= 0 for kinds in plan.moments.values() for count in kinds.values())
    assert plan.time.step_s > 0 and 0 < plan.model_flop_utilisation < machine.mfu
    assert plan.fits, plan.lines()
    assert json.loads(json.dumps(plan.as_json()))["fits"]


def test_forward_flops_are_those_torch_counts() -> None:
    """Its counter sees matrix products, so attention is written out; pooling and projection are below a hundredth."""
    from torch.utils.flop_counter import FlopCounterMode

    from largede.models.build import build_structure

    settings = with_settings(Recipe(), model__backbone="mini", engine__attention="padded")
    model = build_structure(settings.model).query_tower
    model.encoder.set_attn_implementation("eager")
    tokens = torch.randint(3, 900, (4, 96))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens, torch.ones_like(tokens))
    ours = forward_flops(predict(settings, Machine(gpus=1)).setup, tokens.numel(), 96)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_passes_of_a_step() -> None:
    """F without gradient, then 3 F, or 4 F recomputed; 3 F when graphs are kept."""

    def work(**dotted: Any) -> float:
        plan = predict(recipe(engine__attention="padded", **dotted), Machine(gpus=1))
        return arithmetic(plan.setup, mean_sides(plan.setup, plan.machine))[0]

    kept = work(batch__gradient_cache=False)
    assert work() == pytest.approx(kept * 4 / 3, rel=0.01)
    assert work(engine__activation_checkpointing=True) == pytest.approx(kept * 5 / 3, rel=0.01)


def test_traffic_by_hand() -> None:
    """Eight GPUs of one node take in 7/8; eight nodes share 7/8 between the eight links of each."""
    node = predict(recipe(), Machine(gpus=8, link_gbs=100))
    assert Traffic(node.setup, node.machine).spread_s(8e9) == pytest.approx(0.07)
    nodes = predict(recipe(), Machine(gpus=64, nodes=8, link_gbs=100, network_gbs=10))
    assert Traffic(nodes.setup, nodes.machine).spread_s(8e9) == pytest.approx(max(0.07, 0.0875))


def test_hpz_keeps_gathers_inside_a_node(tmp_path: Path) -> None:
    zero = {"stage": 3, "zero_hpz_partition_size": 8}
    path = tmp_path / "hpz.json"
    write_json(path, {"bf16": {"enabled": True}, "zero_optimization": zero})
    machine = Machine(gpus=64, nodes=8, network_gbs=5)
    inside, across = predict(recipe(engine__deepspeed=str(path)), machine), predict(recipe(), machine)
    assert inside.time.gathers_s < across.time.gathers_s / 2
    assert inside.moments["backward"]["gathered"] > across.moments["backward"]["gathered"]


def test_a_slow_loader_bounds_the_step() -> None:
    plan = predict(recipe(data__workers=1), Machine(gpus=1, loader_pairs_per_s=10))
    assert plan.time.bound_by == "loader" and plan.pairs_per_s == pytest.approx(10)
    serial = predict(recipe(data__workers=0), Machine(gpus=1, loader_pairs_per_s=10))
    assert serial.time.step_s == pytest.approx(plan.time.gpu_s + plan.time.loader_s)


TIGHT = {
    "xxl on 80": ("gtr-xxl-pretrain", Machine(gpus=1)),
    "xxl on 40": ("gtr-xxl-pretrain", Machine(gpus=1, gpu_gib=40)),
    "xxl on 52": ("gtr-xxl-pretrain", Machine(gpus=1, gpu_gib=52)),
    "xl on 24": ("gtr-xl-finetune", Machine(gpus=1, gpu_gib=24)),
    "base on 8 x 80": ("gtr-base-pretrain", Machine(gpus=8)),
    "base on 8": ("gtr-base-finetune", Machine(gpus=1, gpu_gib=8)),
    "quickstart": ("quickstart", Machine(gpus=2, gpu_gib=8)),
}


@pytest.mark.parametrize("name", TIGHT)
def test_advice_is_a_command_that_works(name: str) -> None:
    """Its flags, read back, give a recipe and a machine that fit, and that the engine does not refuse."""
    from largede.training.engine import deepspeed_config

    source, machine = TIGHT[name]
    plan = predict(load_recipe(source), machine)
    found = advise(plan)
    assert found or plan.fits
    for advice in found:
        words = shlex.split(advice.change.flags)
        gpus = {w.lstrip("-"): int(v) for w, v in zip(words, words[1:], strict=False) if w in ("--gpus", "--nodes")}
        settings = [w for pair in zip(words[::2], words[1::2], strict=True) if "." in pair[0] for w in pair]
        changed = load_recipe(source, settings)
        assert changed == advice.plan.recipe
        again = predict(changed, Machine(**{**vars(machine), **gpus}))
        assert again.fits and again.time.step_s == advice.plan.time.step_s
        deepspeed_config(changed, BatchPlan(changed.batch.queries, again.machine.gpus))
        if plan.fits:
            assert again.time.step_s < 0.97 * plan.time.step_s


def test_advice_prefers_settings_to_hardware_and_says_when_there_is_none() -> None:
    tight = predict(load_recipe("gtr-base-finetune"), Machine(gpus=1, gpu_gib=8))
    assert not tight.fits
    assert all(advice.change.gpus is None for advice in advise(tight))
    hopeless = predict(load_recipe("gtr-xxl-pretrain"), Machine(gpus=1, gpu_gib=2.5))
    assert advise(hopeless) == [] and "Nothing tried here" in hopeless.lines()[-1]


@pytest.mark.parametrize(
    "numbers",
    [
        {"gpus": 0},
        {"gpus": -1},
        {"gpus": 3, "nodes": 2},
        {"gpus": 1, "nodes": 0},
        {"gpus": 1, "gpu_gib": -80},
        {"gpus": 1, "gpu_gib": float("nan")},
        {"gpus": 1, "gpu_gib": 1.0},
        {"gpus": 1, "mfu": 1.5},
        {"gpus": 1, "mfu": 0.0},
        {"gpus": 1, "network_gbs": 0},
        {"gpus": 1, "query_tokens": -3.0},
        {"gpus": 1, "host_gib": 0},
    ],
)
def test_machines_that_do_not_exist_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(MachineError):
        Machine(**numbers)


@pytest.mark.parametrize(
    ("dotted", "said"),
    [
        ({"batch__queries": 8, "data__lanes": 1}, "8 on 16 ranks"),
        ({"engine__deepspeed": "zero9.json"}, "is no file"),
        ({"engine__deepspeed": "zero2_bf16.json", "engine__parameters": "resident"}, "resident"),
        ({"optimizer__rate_factors": {"proyection": 0.0}}, "occurs in no parameter's name"),
        ({"optimizer__rate_factors": {"encoder": 0.0, "projection": 0.0}}, "freezes every parameter"),
        ({"optimizer__rate_factors": {"tower": 2.0, "projection": 0.0}}, "comes after parts"),
    ],
)
def test_runs_that_cannot_be_are_refused(dotted: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        predict(recipe(**dotted), Machine(gpus=16))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"bf16": {"enabled": True}}, "bf16 parameters at ZeRO stage 0"),
        ({"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}}, "copies within 8 ranks"),
        ([1], "no object"),
    ],
)
def test_deepspeed_files_that_cannot_be_are_refused(config: Any, said: str, tmp_path: Path) -> None:
    write_json(tmp_path / "ds.json", config)
    with pytest.raises(LargedeError, match=said):
        predict(recipe(engine__deepspeed=str(tmp_path / "ds.json")), Machine(gpus=4))
