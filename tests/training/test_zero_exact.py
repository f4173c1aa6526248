"""The step and the optimizer under ZeRO equal their plain single-process twins, on one, two and three ranks.

One process group per number of ranks serves every check, because starting ranks is what costs time.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from batches_for_tests import MadeBatch, plain_gradients, small_recipe
from ranks import run_on_ranks
from recording import Recording
from torch import Tensor

from largede.config.recipe import Recipe
from largede.models.build import build_dual_encoder
from largede.training.adafactor import PlainAdafactor
from largede.training.checkpoint import client_optimizer
from largede.training.engine import build_engine
from largede.training.gradcache import GradCacheStep
from largede.training.slices import flat_groups

CASES: dict[str, dict[str, Any]] = {
    "per-chunk": {},
    "coalesced": {"engine__gradient_reduction": "coalesced"},
    "graphs kept": {"batch__gradient_cache": False},
    "larger first pass": {"batch__no_grad_chunk_tokens": 170},
    "one chunk": {"batch__chunk_tokens": 10_000},
    "two towers": {"model__layout": "ade"},
    "frozen embedder": {"model__layout": "ade-fte"},
    "shared embedder": {"model__layout": "ade-ste"},
    "shared projection": {"model__layout": "ade-spl"},
    "dot": {"model__similarity": "dot", "loss__temperature": 10.0},
    "one direction": {"loss__passage_to_query": False, "loss__mask_duplicates": False},
    "checkpointed": {"engine__activation_checkpointing": True},
}
HARD_NEGATIVES = 3


def whole_gradients(recorded: dict[str, tuple[Any, Tensor]]) -> dict[str, Tensor]:
    """Put the slices of all ranks together."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, recorded)
    whole = {}
    for name, (held, _) in recorded.items():
        flat = torch.full((held.numel,), float("nan"))
        for ranks_slices in everyone:
            part, values = ranks_slices[name]
            flat[part.start : part.start + part.length] = values
        whole[name] = flat.view(held.shape)
    return whole


def gradients_of_step(recipe: Recipe, batch: MadeBatch, step_type: type[GradCacheStep] = GradCacheStep) -> Any:
    engine = build_engine(build_dual_encoder(recipe.model), recipe, optimizer_type=Recording)
    step = step_type(engine, recipe)
    report = step(batch.of_rank(dist.get_rank(), dist.get_world_size()))
    engine.step()
    whole = whole_gradients(client_optimizer(engine).gradients)
    engine.destroy()
    return report.score, whole


def worst_error(ours: dict[str, Tensor], truth: dict[str, Tensor]) -> tuple[float, str]:
    assert set(ours) == set(truth)
    return max((float((ours[n] - g).norm() / g.norm()), n) for n, g in truth.items())


class NoReplay(GradCacheStep):
    """Broken on purpose: dropout falls anew in the second pass."""

    def replay(self, side: Any, first: Any, index: int, chunk: Any) -> Tensor:
        return self.embed(side, chunk)


class NoWorldFactor(GradCacheStep):
    """Broken on purpose: forgets that DeepSpeed averages over ranks."""

    def surrogate(self, output_bD: Tensor, chunk: Any, d_BD: Tensor) -> Tensor:
        return super().surrogate(output_bD, chunk, d_BD) / dist.get_world_size()


def check_gradients(folder: Path, names: tuple[str, ...], step_type: type[GradCacheStep] = GradCacheStep) -> Any:
    """(loss error, worst gradient error, its parameter) of each case at ZeRO-1, 2, 3; the first without ZeRO too."""
    results = {}
    for stage in (0, 1, 2, 3):
        for name in names if stage else names[:1]:
            recipe = small_recipe(folder, stage, **CASES[name])
            batch = MadeBatch(recipe.batch.queries, HARD_NEGATIVES)
            truth_loss, truth = plain_gradients(recipe, batch)
            score, ours = gradients_of_step(recipe, batch, step_type)
            results[f"ZeRO-{stage}, {name}"] = (abs(score.loss - truth_loss) / truth_loss, *worst_error(ours, truth))
    return results


def check_dropout(folder: Path, step_type: type[GradCacheStep]) -> float:
    """Worst gradient error of the replayed step against the twin that keeps the graphs of the same chunks."""
    gradients = []
    for cached in (True, False):
        recipe = small_recipe(folder, 3, model__dropout=0.3, batch__gradient_cache=cached)
        torch.manual_seed(dist.get_rank())
        gradients.append(gradients_of_step(recipe, MadeBatch(recipe.batch.queries, HARD_NEGATIVES), step_type)[1])
    return worst_error(*gradients)[0]


def check_adafactor(folder: Path, stage: int) -> tuple[float, float]:
    """After ten steps given the same gradients: worst |difference| / RMS of a parameter; state bytes / parameter."""
    recipe = small_recipe(folder, stage, optimizer__learning_rate=0.02)
    twin = build_dual_encoder(recipe.model)
    twin_optimizer = PlainAdafactor(twin.parameters(), lr=0.02)
    engine = build_engine(build_dual_encoder(recipe.model), recipe, optimizer_type=Recording)
    step = GradCacheStep(engine, recipe)
    for number in range(10):
        step(
            MadeBatch(recipe.batch.queries, HARD_NEGATIVES, seed=number).of_rank(dist.get_rank(), dist.get_world_size())
        )
        engine.step()
        gradients = whole_gradients(client_optimizer(engine).gradients)
        for name, parameter in twin.named_parameters():
            parameter.grad = gradients[name]
        twin_optimizer.step()
    masters = {h.name: (h, h.of(g.flat).clone()) for g in flat_groups(engine) for h in g.slices}
    ours = whole_gradients(masters)
    worst = max(
        float((ours[name] - p.detach()).abs().max() / p.detach().square().mean().sqrt())
        for name, p in twin.named_parameters()
    )
    state = client_optimizer(engine).state_bytes() / sum(p.numel() for p in twin.parameters())
    engine.destroy()
    return worst, state


def check_everything(folder: str, names: tuple[str, ...]) -> dict[str, Any]:
    path = Path(folder)
    return {
        "gradients": check_gradients(path, names),
        "without world factor": check_gradients(path, names[:1], NoWorldFactor),
        "replay": check_dropout(path, GradCacheStep),
        "no replay": check_dropout(path, NoReplay),
        "adafactor": {stage: check_adafactor(path, stage) for stage in (0, 1, 2, 3)},
    }


@pytest.mark.parametrize("world", [1, 2, 3])
def test_step_and_optimizer_equal_their_plain_twins(world: int, tmp_path: Path) -> None:
    names = tuple(CASES) if world == 2 else ("per-chunk", "coalesced", "larger first pass", "two towers")
    answer = run_on_ranks(world, check_everything, tmp_path, str(tmp_path), names)[0]
    for name, (loss_error, error, parameter) in answer["gradients"].items():
        print(f"W={world} {name}: loss {loss_error:.1e}, worst gradient {error:.1e} ({parameter})")
        assert loss_error < 1e-6, name
        assert error < 1e-5, (name, parameter)
    for stage in (0, 1, 2, 3):
        worst = max(e for name, (_, e, _) in answer["gradients"].items() if name.startswith(f"ZeRO-{stage}"))
        print(f"W={world} ZeRO-{stage}: worst gradient of all cases {worst:.1e}")
    print(f"W={world} dropout: replayed {answer['replay']:.1e}, not replayed {answer['no replay']:.1e}")
    assert answer["replay"] < 1e-5
    assert answer["no replay"] > 1e-2, "the check would not notice a replay that is off"
    for stage, (error, state) in answer["adafactor"].items():
        print(f"W={world} ZeRO-{stage} Adafactor: {error:.1e} of RMS, {state:.3f} state bytes per parameter")
        assert error < 1e-6, stage
    if world > 1:
        assert all(error > 0.1 for _, error, _ in answer["without world factor"].values())
