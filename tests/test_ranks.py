"""The harness of all multi-process tests: a rank that fails, or dies, fails the test at once, with its story."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import run_on_ranks


def sum_over_ranks(end: str) -> float:
    if dist.get_rank() == 1 and end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if dist.get_rank() == 1 and end == "failed":
        raise ValueError("of its own making")
    value = torch.tensor(float(dist.get_rank()))
    dist.all_reduce(value)
    return float(value)


def test_ranks_answer_in_their_order(tmp_path: Path) -> None:
    assert run_on_ranks(2, sum_over_ranks, tmp_path, "well") == [1.0, 1.0]


@pytest.mark.parametrize(("end", "said"), [("killed", "status -9"), ("failed", "of its own making")])
def test_a_rank_that_ends_early_is_not_waited_for(end: str, said: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(AssertionError, match="rank [01] of 2") as failure:
        run_on_ranks(2, sum_over_ranks, tmp_path, end)
    # The other rank may be the first to notice: gloo tells it that its peer has gone.
    assert said in str(failure.value) or "peer" in str(failure.value)
    assert time.monotonic() - started < 60
