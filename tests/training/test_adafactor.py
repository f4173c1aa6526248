"""Adafactor over ZeRO slices equals the plain twin, the plain twin equals others' Adafactor, and both the formulas.

One process group per number of ranks serves every stage, with and without offload, because starting ranks costs time.
"""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from optimizer_ranks import (
    SHAPES,
    MadeModel,
    made_engine,
    made_gradients,
    made_recipe,
    take_steps,
    trained_names,
    whole_masters,
    worst_difference,
)
from ranks import run_on_ranks
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

from largede.config.load import with_settings
from largede.config.recipe import OptimizerConfig, Recipe
from largede.errors import RecipeError, TrainingError
from largede.models.build import build_structure
from largede.training import adafactor as adafactor_module
from largede.training.adafactor import Moments, PlainAdafactor, ZeroAdafactor
from largede.training.optimizers import build_optimizer, client_optimizer, parameter_groups, set_learning_rate
from largede.training.slices import FlatGroup, ParameterSlice, flat_groups

RATE = 0.02
FACTORS = {"projection": 10.0, "embed_tokens": 0.5}
OFFLOADED = {"offload_optimizer": {"device": "cpu", "pin_memory": False}}
STEPS = 10


def plain_masters(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The made model after ten steps of the plain twin."""
    model = MadeModel().to(dtype)
    optimizer = PlainAdafactor(parameter_groups(model, FACTORS), lr=RATE)
    set_learning_rate(optimizer, RATE)
    for step in range(STEPS):
        for name, gradient in made_gradients(step, trained_names(model)).items():
            getattr(model, name).grad = gradient.to(dtype)
        optimizer.step()
    return {name: getattr(model, name).detach() for name in trained_names(model)}


def offloads(engine: Any) -> bool:
    zero = engine.optimizer
    return bool(getattr(zero, "cpu_offload", False) or getattr(zero, "offload_optimizer", False))


def every_stage(folder: str) -> dict[str, Any]:
    """For each stage and offload: difference to the plain twin, its groups, what was offloaded, relative updates."""
    found = {}
    for stage in (0, 1, 2, 3):
        for zero in ({}, OFFLOADED) if stage else ({},):
            engine = made_engine(made_recipe(Path(folder), stage, zero, optimizer__rate_factors=FACTORS))
            take_steps(engine, range(STEPS))
            masters = whole_masters(engine)
            optimizer = client_optimizer(engine)
            found[f"ZeRO-{stage}{' offloaded' if zero else ''}"] = {
                "float32": worst_difference(masters, plain_masters()),
                "float64": worst_difference(masters, plain_masters(torch.float64)),
                "groups": len(flat_groups(engine)),
                "offloaded": offloads(engine),
                "relative": {name: float(value) for name, value in optimizer.relative_update.items()},
                "state": {n: float(t.sum()) for n, m in optimizer.moments.items() for t in m.tensors().values()},
            }
            engine.destroy()
    return found


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_adafactor_equals_the_plain_twin(world: int, tmp_path: Path) -> None:
    found = run_on_ranks(world, every_stage, tmp_path, str(tmp_path))
    for name, facts in found[0].items():
        print(f"W={world} {name}: {facts['float32'][0]:.1e} of RMS ({facts['float32'][1]}), {facts['groups']} flat")
        assert facts["float32"][0] < 1e-6, (name, facts["float32"])
        # The same distance to the formulas in float64: what is left is rounding of float32, not a difference in kind.
        assert facts["float64"][0] < 2e-6, (name, facts["float64"])
        assert facts["groups"] >= 3
        assert facts["offloaded"] == ("offloaded" in name)
        assert facts["relative"].keys() == set(SHAPES) - {"frozen"}
        assert facts["relative"] == pytest.approx(found[0]["ZeRO-0"]["relative"], rel=1e-4)
        assert facts["state"] == pytest.approx(found[0]["ZeRO-0"]["state"], rel=1e-5)
    for other in found[1:]:
        assert [o["relative"] for o in other.values()] == [o["relative"] for o in found[0].values()]


def test_the_plain_twin_differs_from_float64_by_rounding_alone() -> None:
    worst, name = worst_difference(plain_masters(), plain_masters(torch.float64))
    assert 0 < worst < 2e-6, name


def other_adafactors(parameters: list[nn.Parameter]) -> dict[str, torch.optim.Optimizer]:
    from transformers.optimization import Adafactor

    parts = {"lr": RATE, "clip_threshold": 1.0, "decay_rate": -0.8, "beta1": None}
    theirs: dict[str, torch.optim.Optimizer] = {
        "transformers": Adafactor(
            parameters, **parts, scale_parameter=True, relative_step=False, warmup_init=False, eps=(1e-30, 1e-3)
        )
    }
    # torch caps the rate at 1 / sqrt(t), which does not bind here, and puts its epsilon elsewhere.
    theirs["torch"] = torch.optim.Adafactor(
        parameters, lr=RATE, beta2_decay=-0.8, eps=(1e-30, 1e-3), d=1.0, weight_decay=0.0
    )
    return theirs


@pytest.mark.parametrize("library", ["transformers", "torch"])
def test_the_plain_twin_equals_independent_ones(library: str) -> None:
    """They factor every matrix, so ours is told to as well (factor_from 1)."""
    shapes = [(130, 257), (20, 140), (333,)]
    ours, theirs = [], []
    for shape in shapes:
        start = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        ours.append(nn.Parameter(start.clone()))
        theirs.append(nn.Parameter(start.clone()))
    plain = PlainAdafactor(ours, lr=RATE, factor_from=1)
    other = other_adafactors(theirs)[library]
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        for own, their in zip(ours, theirs, strict=True):
            own.grad = torch.randn(own.shape, generator=generator, dtype=torch.float64) * 10.0 ** (step % 3 - 1)
            their.grad = own.grad.clone()
        plain.step()
        other.step()
    for own, their in zip(ours, theirs, strict=True):
        rms = their.detach().square().mean().sqrt()
        assert float((own - their).detach().abs().max() / rms) < 1e-9, own.shape


def test_the_first_step_by_hand() -> None:
    """Decay is 0 at step 1, so the update is g / sqrt(r c / mean r) with this gradient's own means."""
    parameter = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64))
    parameter.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    PlainAdafactor([parameter], lr=0.1, factor_from=2).step()
    row, column, mean = (2.5, 12.5), (5.0, 10.0), 7.5
    update = [
        [g / math.sqrt(row[i] * column[j] / mean) for j, g in enumerate(line)]
        for i, line in enumerate([(1, 2), (3, 4)])
    ]
    rms = math.sqrt(sum(u * u for line in update for u in line) / 4)
    scale = 0.1 * math.sqrt(25 / 4) / max(1.0, rms)
    expected = [
        [3.0 - scale * update[0][0], 4.0 - scale * update[0][1]],
        [-scale * update[1][0], -scale * update[1][1]],
    ]
    torch.testing.assert_close(parameter.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_vector_moves_by_the_sign_at_first() -> None:
    """Unfactored: g / |g|, times rate and the parameter's RMS, or 1e-3 where that is smaller."""
    parameter = nn.Parameter(torch.tensor([0.0, 0.0]))
    parameter.grad = torch.tensor([5.0, -0.1])
    PlainAdafactor([parameter], lr=0.1).step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([-1e-4, 1e-4]))


def bound_alone(shape: tuple[int, ...], gradient: Tensor | None = None) -> tuple[nn.Parameter, ZeroAdafactor]:
    """An optimizer over one whole parameter, without DeepSpeed."""
    parameter = nn.Parameter(torch.full(shape, 2.0))
    parameter.grad = torch.ones(shape) if gradient is None else gradient
    optimizer = ZeroAdafactor([parameter], lr=0.1)
    held = ParameterSlice("it", shape, 0, parameter.numel(), 0)
    optimizer.bind([FlatGroup(parameter, (held,), replicated=True)])
    return parameter, optimizer


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 200), (200, 1), (0,), (0, 5), (128, 128)])
def test_odd_shapes_step(shape: tuple[int, ...]) -> None:
    parameter, optimizer = bound_alone(shape)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full(shape, 1.8))
    assert math.isfinite(float(optimizer.relative_update["it"]))


@pytest.mark.parametrize("shape", [(), (7,), (130, 130)])
def test_a_gradient_of_zeros_changes_nothing(shape: tuple[int, ...]) -> None:
    parameter, optimizer = bound_alone(shape, torch.zeros(shape))
    for _ in range(3):
        parameter.grad = torch.zeros(shape)
        optimizer.step()
    assert torch.equal(parameter.detach(), torch.full(shape, 2.0))
    assert float(optimizer.relative_update["it"]) == 0.0


def test_the_relative_update_is_what_was_done() -> None:
    generator = torch.Generator().manual_seed(3)
    parameter, optimizer = bound_alone((140, 150), torch.randn((140, 150), generator=generator))
    before = parameter.detach().clone()
    optimizer.step()
    done = (parameter.detach() - before).square().mean().sqrt() / before.square().mean().sqrt()
    assert float(optimizer.relative_update["it"]) == pytest.approx(float(done), rel=1e-4)


def test_three_dimensions_are_refused_by_name() -> None:
    with pytest.raises(TrainingError, match=r"parameter it has shape \(2, 3, 4\)") as refused:
        bound_alone((2, 3, 4))
    assert "adamw" in str(refused.value)


def test_masters_that_are_not_float32_are_refused() -> None:
    parameter = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    with pytest.raises(TrainingError, match=r"copy of it is torch.bfloat16"):
        ZeroAdafactor([parameter], lr=1.0).bind([FlatGroup(parameter, (ParameterSlice("it", (4,), 0, 4, 0),))])


def test_a_tensor_that_was_not_bound_is_refused() -> None:
    parameter = nn.Parameter(torch.ones(4))
    with pytest.raises(TrainingError, match="does not know"):
        ZeroAdafactor([parameter], lr=1.0).step()


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operations made and that are still alive; `peak` is their largest sum."""

    def __init__(self, own: list[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in own}
        self.live = WeakTensorKeyDictionary()
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.live[tensor] = True
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self.live}
        self.peak = max(self.peak, sum(storages.values()))
        return result


def test_a_step_needs_the_memory_of_one_parameter() -> None:
    """Twelve matrices in one flat tensor: less than two of them on top (a list of updates took thirteen)."""
    side, matrices = 256, 12
    each = side * side
    parameter = nn.Parameter(torch.ones(matrices * each))
    slices = tuple(ParameterSlice(f"m{i}", (side, side), 0, each, i * each) for i in range(matrices))
    optimizer = ZeroAdafactor([parameter], lr=0.1)
    optimizer.bind([FlatGroup(parameter, slices, replicated=True)])
    parameter.grad = torch.randn(matrices * each)
    with LiveBytes([parameter, parameter.grad]) as measured:
        optimizer.step()
    print(f"extra memory of a step: {measured.peak / (4 * each):.2f} matrices of {matrices}")
    assert 4 * each <= measured.peak < 2 * 4 * each


def test_sums_travel_where_the_process_group_can_reach_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL cannot sum CPU tensors, and offloaded masters are CPU tensors. Fake tensors stand in for the GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    seen = []

    def sum_there(tensor: Tensor) -> Tensor:
        seen.append(tensor.device.type)
        return tensor

    monkeypatch.setattr(adafactor_module, "group_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(adafactor_module, "sum_over_ranks", sum_there)
    with FakeTensorMode():
        parameter = nn.Parameter(torch.ones(200 * 130))
        parameter.grad = torch.ones(200 * 130)
        optimizer = ZeroAdafactor([parameter], lr=0.1)
        optimizer.bind([FlatGroup(parameter, (ParameterSlice("it", (200, 130), 0, 200 * 130, 0),))])
        optimizer.step()
        assert optimizer.relative_update["it"].device.type == "cpu"
    assert seen == ["cuda", "cuda"]


def test_factors_group_freeze_and_follow_the_schedule() -> None:
    model = MadeModel()
    config = OptimizerConfig(rate_factors={"embed_tokens": 0.0, "projection": 10.0, "o": 2.0})
    optimizer = build_optimizer(model, config)
    assert not model.tall.requires_grad, "a tied parameter answers to each of its names"
    assert [group["rate_factor"] for group in optimizer.param_groups] == [1.0, 2.0, 10.0]
    set_learning_rate(optimizer, 0.3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.6, 3.0]
    grouped = {id(p): g["rate_factor"] for g in optimizer.param_groups for p in g["params"]}
    assert grouped[id(model.projection)] == 10.0, "the first part that occurs counts"
    assert grouped[id(model.row)] == 2.0 and grouped[id(model.wide)] == 1.0
    assert id(model.frozen) not in grouped and id(model.tall) not in grouped


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_a_factor_is_a_factor_on_the_change(name: Any) -> None:
    changes = []
    for factors in ({}, {"projection": 10.0}):
        model = MadeModel()
        before = model.projection.detach().clone()
        optimizer = build_optimizer(model, OptimizerConfig(name=name, rate_factors=factors, learning_rate=1e-3))
        if isinstance(optimizer, ZeroAdafactor):
            held = {n: ParameterSlice(n, SHAPES[n], 0, getattr(model, n).numel(), 0) for n in trained_names(model)}
            optimizer.bind([FlatGroup(getattr(model, n), (held[n],), replicated=True) for n in held])
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        changes.append(model.projection.detach() - before)
    torch.testing.assert_close(changes[1], 10 * changes[0], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"proyection": 2.0}, r"'proyection', which occurs in no parameter's name.*projection"),
        ({"o": 1.0, "projection": 2.0}, r"'projection' comes after parts that take all"),
        (dict.fromkeys(SHAPES, 0.0), r"freezes every parameter"),
    ],
)
def test_factors_without_effect_are_refused(factors: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        build_optimizer(MadeModel(), OptimizerConfig(rate_factors=factors))
    assert re.search(message, str(refused.value), re.DOTALL)


def state_bytes_per_parameter(preset: str) -> tuple[float, int]:
    """From the shapes alone, of a dual encoder with shared towers and a projection to 768."""
    with torch.device("meta"):
        model = build_structure(with_settings(Recipe(), model__backbone=preset).model)
    parameters = dict(model.named_parameters())
    made = [Moments.zeros(name, tuple(p.shape), 128, "meta") for name, p in parameters.items()]
    held = sum(t.numel() * t.element_size() for m in made for t in m.tensors().values())
    count = sum(p.numel() for p in parameters.values())
    return held / count, count


def test_the_state_is_a_hundredth_of_a_byte_per_parameter() -> None:
    for preset in ("gtr-base", "gtr-large", "gtr-xl", "gtr-xxl"):
        share, count = state_bytes_per_parameter(preset)
        print(f"{preset}: {count / 1e6:,.0f} M parameters, {share:.4f} state bytes per parameter")
    assert share < 0.02
