"""What the tests share: a made world, and which of them are left out unless asked for."""

import os
from collections.abc import Iterator

import pytest
from made_world import MadeWorld, make_world

EXHAUSTIVE = "minutes of work over a smaller test that always runs; LARGEDE_EXHAUSTIVE=1 runs it"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("LARGEDE_EXHAUSTIVE"):
        return
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.skip(reason=EXHAUSTIVE))


@pytest.fixture(scope="session", autouse=True)
def cache_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the cache of the user who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LARGEDE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> MadeWorld:
    return make_world(tmp_path_factory.mktemp("world"))
