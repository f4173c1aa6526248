"""The recipe of a small run that takes negatives mined anew while it trains."""

from pathlib import Path
from typing import Any

from batches_for_tests import small_recipe
from made_world import MadeWorld

from largede.config.recipe import Recipe


def refreshing_recipe(world: MadeWorld, folder: Path, out: str, **dotted: Any) -> Recipe:
    settings: dict[str, Any] = {
        "model__tokenizer": str(world.vocabulary),
        "model__layers": 1,
        "data__shards": str(world.shards),
        "data__lanes": 2,
        "data__hard_negatives": 2,
        "data__refresh_steps": 3,
        "batch__queries": 8,
        "batch__chunk_tokens": 120,
        "run__out": str(folder / out),
        "run__checkpoint_every": 2,
        "run__save_async": False,
        "run__dry_run": False,
    }
    return small_recipe(folder, **settings | dotted)
