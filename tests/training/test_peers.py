"""The step equals that of sentence-transformers: same weights, same tokens, plain and cached, float32."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches_for_tests import made_rows, small_recipe

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

from peer_twin import (
    as_sentence_transformer,
    columns_of,
    directions_of,
    peer_gradients,
    peer_loss,
    watch_gradients,
    worst_difference,
)

from largede.config.recipe import Recipe
from largede.models.build import build_dual_encoder
from largede.streams.tokenise import RankBatch
from largede.training.engine import build_engine, join_ranks, leave_ranks
from largede.training.gradcache import GradCacheStep

TOLERANCE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    join_ranks(small_recipe(tmp_path_factory.mktemp("group")).engine)
    yield
    leave_ranks(all_ranks_leave=True)


def regular_batch(pairs: int, hard_negatives: int) -> RankBatch:
    """Every query with the same number of hard negatives, for its losses know no ragged ones, and no text twice."""
    generator = np.random.default_rng(0)
    negatives = pairs * hard_negatives
    return RankBatch(
        step=0,
        queries=made_rows(generator, pairs, 9),
        passages=made_rows(generator, pairs + negatives, 21),
        query_keys=np.arange(3 * pairs).reshape(pairs, 3),
        answer_keys=np.empty((pairs, 0), dtype=np.int64),
        negative_keys=np.arange(3 * negatives).reshape(negatives, 3) + 3 * pairs,
        sample_names=tuple(f"pair-{i}" for i in range(pairs)),
        cut_texts=0,
    )


def our_step(recipe: Recipe, batch: RankBatch) -> tuple[float, dict[str, torch.Tensor]]:
    engine = build_engine(build_dual_encoder(recipe.model), recipe)
    seen = watch_gradients(engine)
    loss = GradCacheStep(engine, recipe)(batch).score.loss
    engine.step()
    engine.destroy()
    return loss, seen


def their_step(peer: Any, recipe: Recipe, batch: RankBatch, mini_batch: int | None) -> Any:
    peer.zero_grad()
    loss = peer_loss(peer, recipe, mini_batch)(columns_of(batch), None)
    loss.backward()
    return loss.item(), peer_gradients(peer)


@pytest.mark.parametrize("hard_negatives", [0, 2])
@pytest.mark.parametrize("both_directions", [False, True])
def test_loss_and_gradients_equal_those_of_sentence_transformers(
    both_directions: bool, hard_negatives: int, tmp_path: Path
) -> None:
    recipe = small_recipe(tmp_path, 1, loss__passage_to_query=both_directions)
    batch = regular_batch(recipe.batch.queries, hard_negatives)
    loss, ours = our_step(recipe, batch)
    scaled = {name: gradient / directions_of(recipe) for name, gradient in ours.items()}
    peer = as_sentence_transformer(build_dual_encoder(recipe.model), tmp_path / "peer")
    for mini_batch in (None, 4):
        their_loss, theirs = their_step(peer, recipe, batch, mini_batch)
        found, name = worst_difference(scaled, theirs)
        kind = "plain" if mini_batch is None else "cached"
        print(f"both directions {both_directions}, {hard_negatives} hard negatives, {kind}: {found:.1e} ({name})")
        assert abs(loss / directions_of(recipe) - their_loss) < TOLERANCE * their_loss
        assert found < TOLERANCE, name
