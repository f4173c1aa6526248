"""Killed at ten random moments and started again, an evaluation ends with the same bytes and repeats little."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from beir_folder import write_collection
from hash_encoder import HashEncoder, hash_model
from killing_evaluation import bytes_of, figures_of, forked, kill_and_restart, leftovers
from ranks import start_server

from largede.evaluation.datasets.collections import open_collections
from largede.evaluation.evaluate import open_evaluation, run_stages
from largede.evaluation.job import EvaluationJob
from largede.retrieval.encoder import Model, Side
from largede.retrieval.processes import Process

DOCUMENTS, SHARD, KILLS = 600, 50, 10


class SlowEncoder(HashEncoder):
    """Takes its time over a shard, and writes down every text that it has embedded."""

    def __init__(self, ledger: Path) -> None:
        super().__init__()
        self.ledger = ledger

    def embed(self, texts: Sequence[str], side: Side, max_tokens: int) -> np.ndarray:
        time.sleep(0.25)
        vectors = super().embed(texts, side, max_tokens)
        if side == "passage":
            with self.ledger.open("a") as file:
                file.write("x" * len(texts))
        return vectors


def evaluate(data: Path, out: Path, ledger: Path) -> None:
    model = Model("slow", "slow-64", lambda: SlowEncoder(ledger))
    run_stages(open_evaluation(EvaluationJob(model, open_collections([str(data)]), out, shard_size=SHARD)))


def evaluate_as(rank: int, data: Path, out: Path) -> None:
    job = EvaluationJob(hash_model(), open_collections([str(data)]), out, bm25=(), shard_size=SHARD)
    run_stages(open_evaluation(job, Process(rank, 3)))


@pytest.mark.slow
def test_three_processes_write_what_one_writes(tmp_path: Path) -> None:
    start_server()
    data = write_collection(tmp_path / "small", documents=DOCUMENTS, queries=48)
    alone = EvaluationJob(hash_model(), open_collections([str(data)]), tmp_path / "alone", bm25=(), shard_size=SHARD)
    run_stages(open_evaluation(alone))
    running = [forked(evaluate_as, rank, data, tmp_path / "together") for rank in (2, 1, 0)]
    assert [one.wait(100) for one in running] == [0, 0, 0]
    assert bytes_of(tmp_path / "together") == bytes_of(tmp_path / "alone")
    assert figures_of(tmp_path / "together") == figures_of(tmp_path / "alone")
    assert not list((tmp_path / "together").rglob("*.parts"))


@pytest.mark.slow
def test_ten_kills_change_no_byte_and_repeat_at_most_the_shard_in_hand(tmp_path: Path) -> None:
    start_server()
    data = write_collection(tmp_path / "small", documents=DOCUMENTS, queries=48, splits=("test", "dev"))
    begin = time.monotonic()
    assert forked(evaluate, data, tmp_path / "whole", tmp_path / "ledger").wait(100) == 0
    whole_s = time.monotonic() - begin
    assert (tmp_path / "ledger").stat().st_size == DOCUMENTS

    out, ledger = tmp_path / "killed", tmp_path / "ledger of the killed"
    killed = kill_and_restart(lambda: forked(evaluate, data, out, ledger), out, KILLS, whole_s, seed=3)
    print(f"undisturbed {whole_s:.1f} s; kills hit {dict(killed.hit)}")
    assert killed.hit["encode"] and len(killed.hit) > 1, f"the kills hit {dict(killed.hit)}"
    assert killed.repeated == []
    assert bytes_of(out) == bytes_of(tmp_path / "whole")
    assert figures_of(out) == figures_of(tmp_path / "whole")
    assert ledger.stat().st_size <= DOCUMENTS * (killed.ended_early + 1) + KILLS * SHARD
    assert leftovers(out) == []
