"""A run on a mixture: what it shows of its sources, how it goes on, and what it refuses."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from batches_for_tests import small_recipe
from made_world import MadeWorld
from ranks import run_on_ranks

from largede.config.recipe import Recipe
from largede.errors import CheckpointError
from largede.streams import chunks
from largede.streams.sources import Mixing, fingerprint_of_sources, open_sources, order_of_sources
from largede.streams.tokenise import PairTokeniser
from largede.training.agreement import refuse_other_run
from largede.training.checkpoints.state import read_state
from largede.training.trainer import Trainer

Figures = list[dict[str, float]]

SLOW_S = 2.0


def recipe_for(world: MadeWorld, folder: Path, out: str, weight: float = 1.0, place: str = "", **dotted: Any) -> Recipe:
    sources = {
        "forum": {"shards": str(world.shards), "weight": 3.0},
        "search": {"shards": place or str(world.shards), "weight": weight, "max_passage_tokens": 8},
    }
    settings: dict[str, Any] = {
        "model__tokenizer": str(world.vocabulary),
        "data__sources": sources,
        "data__mixing_period": 5,
        "batch__queries": 16,
        "batch__chunk_tokens": 120,
        "optimizer__learning_rate": 0.01,
        "run__out": str(folder / out),
        "run__steps": 4,
        "run__log_every": 1,
        "run__checkpoint_every": 2,
        "run__keep_checkpoints": 10,
    }
    return small_recipe(folder, **{**settings, **dotted})


def trained(recipe: Recipe) -> Figures:
    said: list[str] = []
    trainer = Trainer(recipe, said.append)
    assert any("(rows: forum " in line for line in said)
    try:
        trainer.run()
    finally:
        trainer.engine.destroy()
    dist.barrier()
    lines = (Path(recipe.run.out) / "figures.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def trained_without_planning(recipe: Recipe) -> Figures:
    """Steps that may plan no chunk but fillers themselves, since the loader's process has planned all of them."""
    plan = chunks.plan_chunks
    process = os.getpid()

    def only_in_loader(lengths: np.ndarray, budget_tokens: int) -> list[np.ndarray]:
        assert len(lengths) == 0 or os.getpid() != process
        return plan(lengths, budget_tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "plan_chunks", only_in_loader)
        return trained(recipe)


def slowed(recipe: Recipe) -> Figures:
    """A run whose loader takes two seconds more for each batch."""
    tokenise = PairTokeniser.__call__

    def slowly(self: PairTokeniser, *given: Any) -> Any:
        time.sleep(SLOW_S)
        return tokenise(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PairTokeniser, "__call__", slowly)
        return trained(recipe)


def story(folder: str, world: MadeWorld) -> dict[str, Figures]:
    path = Path(folder)
    answer = {"through": trained(recipe_for(world, path, "through"))}
    if dist.get_rank() == 0:
        shutil.copytree(world.shards, path / "moved")
        shutil.copytree(path / "through", path / "again")
        shutil.rmtree(path / "again/checkpoints/step-00000004")
    dist.barrier()
    answer["again"] = slowed(recipe_for(world, path, "again", place=str(path / "moved"), data__workers=1))
    settings = {"data__workers": 1, "batch__no_grad_chunk_tokens": 200, "run__dry_run": False, "run__steps": 5}
    alone = recipe_for(world, path, "single", data__batches="single_source", **settings)
    answer["single"] = trained_without_planning(alone)
    return answer


@pytest.fixture(scope="module")
def runs(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Figures]]:
    folder = tmp_path_factory.mktemp("mixture")
    return folder, run_on_ranks(2, story, folder, str(folder), world)[0]


@pytest.fixture(scope="module")
def answer(runs: tuple[Path, dict[str, Figures]]) -> dict[str, Figures]:
    return runs[1]


def test_rows_texts_and_passes_are_shown_by_source(answer: dict[str, Figures]) -> None:
    for number, figures in enumerate(answer["through"], start=1):
        assert (figures["data/rows/forum"], figures["data/rows/search"]) == (12, 4)
        assert figures["data/epoch/forum"] == 12 * number / 240
        assert figures["data/epoch/search"] == 4 * number / 240
        assert figures["data/epoch"] == 16 * number / 480
        assert figures["data/cut_texts_percent/search"] > figures["data/cut_texts_percent/forum"]


def test_batches_of_one_source_are_taken_in_turn(answer: dict[str, Figures]) -> None:
    rows = [(figures["data/rows/forum"], figures["data/rows/search"]) for figures in answer["single"]]
    assert sorted(rows) == [(0, 16), (16, 0), (16, 0), (16, 0), (16, 0)]
    for figures in answer["single"]:
        for name in ("forum", "search"):
            assert (f"data/cut_texts_percent/{name}" in figures) == (figures[f"data/rows/{name}"] > 0)


def test_a_mixture_goes_on_exactly_from_elsewhere_and_with_other_workers(answer: dict[str, Figures]) -> None:
    losses = [[figures["loss/contrastive"] for figures in answer[name]] for name in ("through", "again")]
    assert losses[0] == losses[1]


def test_another_mixture_is_another_run(world: MadeWorld, runs: tuple[Path, dict[str, Figures]]) -> None:
    folder, _ = runs
    assert refusal(world, folder) == "" == refusal(world, folder, place=str(folder / "moved"))
    said = refusal(world, folder, weight=2.0)
    assert "data.sources.search.weight is 2.0" in said and "begun with 1.0" in said and "fingerprint" in said
    assert "data.batches is single_source" in refusal(world, folder, data__batches="single_source")
    # The table of three batches differs from that of five, and so would every batch.
    assert "data.mixing_period is 3" in refusal(world, folder, data__mixing_period=3)
    alone = refusal(world, folder, data__sources={}, data__shards=str(world.shards))
    assert "data.sources.forum.weight is None" in alone and "fingerprint" in alone


def refusal(world: MadeWorld, folder: Path, **changes: Any) -> str:
    """What is said against continuing the run with another recipe; nothing, when it may."""
    path = folder / "through/checkpoints/step-00000004"
    recipe = recipe_for(world, folder, "through", **changes)
    data, state = recipe.data, read_state(path)
    sources = open_sources(data)
    order = order_of_sources(sources, Mixing.of(data), data.seed, recipe.batch.queries, data.lanes)
    fingerprint = fingerprint_of_sources(sources, order)
    try:
        refuse_other_run(recipe, fingerprint, state.tokenizer_fingerprint, path, state)
    except CheckpointError as error:
        return str(error)
    return ""


def test_waiting_for_a_slow_loader_is_seen(answer: dict[str, Figures]) -> None:
    waited_s = [figures["data/waiting_percent"] / 100 * figures["speed/step_s"] for figures in answer["again"]]
    # Steps 1 and 2 were read in their own process, a batch in no time; 3 and 4 wait for the loader.
    assert max(waited_s[:2]) < SLOW_S / 4
    # The loader sleeps while the step before is computed, which takes its time on a busy machine.
    assert waited_s[2] > SLOW_S / 2
    assert waited_s[2] + waited_s[3] + answer["again"][2]["speed/step_s"] > 1.5 * SLOW_S
