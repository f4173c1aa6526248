"""Fixtures that the tests share."""

import pytest
from made_world import MadeWorld, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> MadeWorld:
    return make_world(tmp_path_factory.mktemp("world"))
