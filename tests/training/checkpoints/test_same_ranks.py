"""A run that goes on where it was: bit for bit on the same ranks, with what it has beside weights and one source.

Every run has six steps, a checkpoint, and four more, and is saved in the middle of its warm-up.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from elastic_runs import SAVED_AT, Place, go_on, losses, recipe_for, train
from made_world import MadeWorld
from ranks import run_on_ranks

from largede.config.recipe import Recipe
from largede.training.checkpoints.read import SliceReader
from largede.training.checkpoints.state import read_state

END = 10
ADAFACTOR, ADAMW = Place("adafactor", 2, 3), Place("adamw", 2, 2)
EMBEDDER = "query_tower.encoder.shared.weight"


def mixed(world: MadeWorld) -> dict[str, Any]:
    """Two sources, and two towers that share an embedder which is not trained."""
    forum, search = {"shards": str(world.shards), "weight": 3.0}, {"shards": str(world.shards), "weight": 1.0}
    sources = {"forum": forum, "search": {**search, "max_passage_tokens": 8}}
    return {"data__shards": "", "data__sources": sources, "model__layout": "ade-fte"}


def recipe(world: MadeWorld, folder: str, out: str, place: Place, **dotted: Any) -> Recipe:
    return recipe_for(world, Path(folder), out, place, run__steps=END, **dotted)


def on_two(folder: str, world: MadeWorld) -> None:
    path = Path(folder)
    for place, workers in ((ADAFACTOR, 2), (ADAMW, 0)):
        settings = {"model__dropout": 0.1, "data__workers": workers}
        train(recipe(world, folder, place.optimizer, place, **settings))
        go_on(path / place.optimizer, recipe(world, folder, f"{place.optimizer} again", place, **settings))
    train(recipe(world, folder, "chunks", ADAFACTOR))
    go_on(path / "chunks", recipe(world, folder, "other chunks", ADAFACTOR, batch__chunk_tokens=60))
    train(recipe(world, folder, "mixed", ADAFACTOR, **mixed(world)))
    go_on(path / "mixed", recipe(world, folder, "mixed again", ADAFACTOR, **mixed(world)))


def on_one(folder: str, world: MadeWorld) -> None:
    place = Place("adafactor", 1, 1)
    go_on(Path(folder) / "mixed", recipe(world, folder, "mixed alone", place, **mixed(world)))


@pytest.fixture(scope="module")
def runs(world: MadeWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("same")
    run_on_ranks(2, on_two, folder, str(folder), world)
    run_on_ranks(1, on_one, folder, str(folder), world)
    return folder


def tensors(out: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights of a checkpoint, and whatever its optimizer keeps."""
    path = out / "checkpoints" / f"step-{step:08d}"
    state = read_state(path)
    reader = SliceReader(path, state)
    found = {name: reader.whole_parameter(name) for name in state.parameters}
    for key in reader.parts:
        if not key.startswith("master/"):
            found[key] = reader.read(key, 0, found[key.partition("/")[2]].numel())
    shared = reader.whole_tensors("shared.safetensors")
    return found | {key: reader.whole_tensor("shared.safetensors", key) for key in shared}


@pytest.mark.parametrize("name", ["adafactor", "adamw", "mixed"])
def test_on_the_same_ranks_losses_weights_and_moments_are_the_same_bits(name: str, runs: Path) -> None:
    assert losses(runs / name, END) == losses(runs / f"{name} again", END)
    through, again = tensors(runs / name, END), tensors(runs / f"{name} again", END)
    assert list(through) == list(again)
    assert any("/" in key for key in through), "moments among them"
    assert all(torch.equal(tensor, again[key]) for key, tensor in through.items())


def test_other_chunks_go_on_closely_but_add_in_another_order(runs: Path) -> None:
    before, after = losses(runs / "chunks", END), losses(runs / "other chunks", END)
    apart = [abs(a - b) for a, b in zip(before, after, strict=True)]
    print(f"other chunks: {max(apart):.1e}")
    assert 0 < max(apart) < 1e-5


def test_a_mixture_with_a_frozen_embedder_goes_on_on_other_ranks(runs: Path) -> None:
    apart = [abs(a - b) for a, b in zip(losses(runs / "mixed", END), losses(runs / "mixed alone", END), strict=True)]
    print(f"mixture, one rank after two: {max(apart):.1e}")
    assert max(apart) < 1e-5
    at_first = tensors(runs / "mixed", SAVED_AT)
    at_last = tensors(runs / "mixed alone", END)
    assert torch.equal(at_first[EMBEDDER], at_last[EMBEDDER])
    assert not any(torch.equal(at_first[n], at_last[n]) for n in at_first if n.endswith("projection.weight"))
