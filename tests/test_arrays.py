import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from largede.arrays import save_array

SCRIPT = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from largede.arrays import save_array
from largede.errors import NoRoomError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_array(Path(sys.argv[1]), np.zeros((1000, 64), dtype=np.float32))
except NoRoomError as error:
    print(type(error).__name__)
"""


def test_an_array_reads_back(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32)
    save_array(tmp_path / "values.npy", values)
    np.testing.assert_array_equal(np.load(tmp_path / "values.npy"), values)


def test_no_room_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "values.npy")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "NoRoomError"
    assert not list(tmp_path.iterdir())
