"""Every test in this folder needs an NVIDIA GPU, and one rank that has joined its group."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU on this machine"))


@pytest.fixture(scope="session", autouse=True)
def one_rank() -> Iterator[None]:
    from largede.config.recipe import EngineConfig
    from largede.training.engine import join_ranks

    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    join_ranks(EngineConfig())
    yield
    torch.distributed.destroy_process_group()
