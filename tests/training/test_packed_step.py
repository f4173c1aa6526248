"""The step over packed chunks equals the step over padded ones, and one process without chunks, at ZeRO-2 and 3.

On a CPU packed attention is its plain twin, so everything but FlexAttention's kernel is the code that runs on a GPU.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from batches_for_tests import MadeBatch, plain_gradients, small_recipe
from ranks import run_on_ranks
from recording import NoReplay, gradients_of_step, worst_error

from largede.models.build import build_dual_encoder
from largede.training.collectives import objects_of_ranks
from largede.training.engine import build_engine
from largede.training.gradcache import GradCacheStep

PACKED = {"engine__attention": "packed"}
CASES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "coalesced, two towers": {"engine__gradient_reduction": "coalesced", "model__layout": "ade"},
    "a chunk far below its budget": {"batch__chunk_tokens": 4096},
    "checkpointed": {"engine__activation_checkpointing": True},
    "larger first pass": {"batch__no_grad_chunk_tokens": 170},
    "graphs kept": {"batch__gradient_cache": False},
}


def ragged_batch() -> MadeBatch:
    """Of its hard negatives the first of two ranks gets so many more that the second needs filler chunks."""
    return MadeBatch(14, 3, seed=2)


def check_gradients(folder: Path) -> dict[str, Any]:
    """Loss error, worst gradient error against padded and against one process: every case at ZeRO-3, two at ZeRO-2."""
    results = {}
    for stage in (2, 3):
        for name, settings in list(CASES.items())[: 2 if stage == 2 else None]:
            padded = small_recipe(folder, stage, **settings)
            packed = small_recipe(folder, stage, **settings, **PACKED)
            batch = ragged_batch()
            truth_loss, truth = plain_gradients(padded, batch)
            _, like_padded = gradients_of_step(padded, batch)
            score, ours = gradients_of_step(packed, batch)
            loss_error = abs(score.loss - truth_loss) / truth_loss
            results[f"ZeRO-{stage}, {name}"] = (loss_error, worst_error(ours, like_padded), worst_error(ours, truth))
    return results


def check_dropout(folder: Path, step_type: type[GradCacheStep]) -> float:
    """Worst gradient error of the replayed packed step against the twin that keeps its graphs."""
    gradients = []
    for cached in (True, False):
        recipe = small_recipe(folder, 3, model__dropout=0.3, batch__gradient_cache=cached, **PACKED)
        torch.manual_seed(dist.get_rank())
        gradients.append(gradients_of_step(recipe, ragged_batch(), step_type)[1])
    return worst_error(*gradients)[0]


def check_padding(folder: Path) -> list[Any]:
    """(padding share reported, share counted by hand, filler chunks) of each rank."""
    recipe = small_recipe(folder, 3, **PACKED)
    engine = build_engine(build_dual_encoder(recipe.model), recipe)
    step = GradCacheStep(engine, recipe)
    batch = ragged_batch().of_rank(dist.get_rank(), dist.get_world_size())
    report = step(batch)
    chunks = [c for rows in (batch.queries, batch.passages) for c in step.equal_chunks(rows, recipe.batch.chunk_tokens)]
    computed = sum(len(chunk.inputs[0]) for chunk in chunks)
    by_hand = 1.0 - batch.real_tokens / computed
    engine.destroy()
    return objects_of_ranks((report.padding_frac, by_hand, sum(chunk.is_filler for chunk in chunks)))


def check_everything(folder: str) -> dict[str, Any]:
    path = Path(folder)
    return {
        "gradients": check_gradients(path),
        "replay": check_dropout(path, GradCacheStep),
        "no replay": check_dropout(path, NoReplay),
        "padding": check_padding(path),
    }


def test_the_packed_step_equals_the_padded_one(tmp_path: Path) -> None:
    answer = run_on_ranks(2, check_everything, tmp_path, str(tmp_path))[0]
    for name, (loss_error, against_padded, against_plain) in answer["gradients"].items():
        print(
            f"packed, {name}: loss {loss_error:.1e}, {against_padded[0]:.1e} of padded, {against_plain[0]:.1e} of plain"
        )
        assert loss_error < 1e-6, name
        assert against_padded[0] < 1e-5, (name, against_padded)
        assert against_plain[0] < 1e-5, (name, against_plain)
    print(f"packed dropout: replayed {answer['replay']:.1e}, not replayed {answer['no replay']:.1e}")
    assert answer["replay"] < 1e-5
    assert answer["no replay"] > 1e-2, "the check would not notice a replay that is off"
    print("padding of each rank (reported, by hand, fillers):", answer["padding"])
    assert all(reported == by_hand for reported, by_hand, _ in answer["padding"])
    assert sum(fillers for _, _, fillers in answer["padding"]) > 0, "no rank had a filler chunk"
