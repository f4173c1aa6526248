"""What the tests of launching share: one small run with its uninterrupted curve, and whether there can be clusters."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from small_run import SmallRun, losses

STAGE = "is run by the stage `clusters` of launch/test.sh, which sets LARGEDE_CLUSTERS=1"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture is made: `@pytest.mark.cluster("pdsh", ...)` skips where root or a program is missing."""
    for mark in item.iter_markers("cluster"):
        missing = [program for program in mark.args if shutil.which(program) is None]
        if not os.environ.get("LARGEDE_CLUSTERS"):
            pytest.skip(STAGE)
        if os.geteuid() != 0:
            pytest.skip("needs root")
        if missing:
            pytest.skip(f"needs the programs {', '.join(missing)}")
        signal.signal(signal.SIGTERM, _leave_in_order)


def _leave_in_order(number: int, frame: object) -> None:
    """So that hosts and daemons are taken down also when the tests are told to end."""
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    return SmallRun(tmp_path_factory.mktemp("small-run"))


@pytest.fixture(scope="session")
def uninterrupted(small_run: SmallRun) -> list[float]:
    """The losses of one process that is never disturbed."""
    command = [sys.executable, "-m", "largede.cli", "train", str(small_run.recipe)]
    command += ["--data.shards", str(small_run.shards), "--run.out", str(small_run.undisturbed / "train")]
    done = subprocess.run(command, env=small_run.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return losses(small_run.undisturbed)
