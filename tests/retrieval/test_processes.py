"""Every process of a launcher knows its place, also without a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from largede.retrieval.processes import this_process
process = this_process()
(Path(sys.argv[1]) / f"{process.rank}-of-{process.world_size}").touch()
"""


@pytest.mark.slow
def test_two_processes_of_torchrun_are_two(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*command, str(tmp_path / "script.py"), str(tmp_path)], check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.glob("*-of-*")) == ["0-of-2", "1-of-2"]


def test_a_lone_process_is_the_first() -> None:
    script = "from largede.retrieval.processes import this_process as p; print(p().rank, p().world_size, p().is_first)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "1", "True"]
