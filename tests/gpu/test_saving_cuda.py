"""Saving beside the run on a GPU: the copy goes into page-locked host memory while the device may still be at work."""

import json
from pathlib import Path

import pytest
import torch


@pytest.mark.parametrize("stage", [0, 3])
def test_a_checkpoint_written_beside_the_run_has_the_bytes_of_one_at_rest(tmp_path: Path, stage: int) -> None:
    from batches_for_tests import MadeBatch, small_recipe

    from largede.config.load import with_settings
    from largede.training.checkpoints.background import CheckpointSaver
    from largede.training.checkpoints.state import StreamPlace, read_state
    from largede.training.checkpoints.write import save_checkpoint
    from largede.training.construct import build_filled_engine
    from largede.training.gradcache import GradCacheStep

    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}, "bf16": {"enabled": stage == 3}}))
    recipe = with_settings(small_recipe(tmp_path), engine__deepspeed=str(path), engine__attention="padded")
    engine = build_filled_engine(recipe)
    step, batch = GradCacheStep(engine, recipe), MadeBatch(recipe.batch.queries, 3).of_rank(0, 1)
    saver = CheckpointSaver(engine, recipe, tmp_path / "beside", print, lambda number, words: None)
    step(batch)
    engine.step()
    torch.cuda._sleep(500_000_000)  # cycles: the copy has to wait for what is enqueued
    saver.save(1, StreamPlace("none"), now=False)
    plain = read_state(save_checkpoint(engine, recipe, 1, tmp_path / "plain", StreamPlace("none")))
    assert saver.block.is_locked
    step(batch)
    engine.step()
    saver.finish()
    engine.destroy()
    assert read_state(tmp_path / "beside" / "step-00000001").files == plain.files
