"""A rank that has not begun leaves when it is told, wherever it waits."""

import os
import signal
import subprocess
import sys
import time

import pytest

WAITS_TO_JOIN = """
import datetime, socket, sys
import torch.distributed as dist
from largede.training.stopping import leave_at_once_on_signal
leave_at_once_on_signal()
with socket.socket() as place:
    place.bind(("127.0.0.1", 0))  # and nobody listens there, as when rank 0 has left already
    print("joining", flush=True)
    dist.TCPStore("127.0.0.1", place.getsockname()[1], 2, False, datetime.timedelta(minutes=5))
"""

BEGINS = """
import signal
from types import SimpleNamespace
from largede.training.stopping import StopRequest, leave_at_once_on_signal
leave_at_once_on_signal()
request = StopRequest(SimpleNamespace())
signal.raise_signal(signal.SIGUSR1)
import time; time.sleep(0.5)
print("received" if request.received else "not received")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_rank_that_waits_for_the_others_leaves_at_once(number: signal.Signals) -> None:
    command = [sys.executable, "-c", WAITS_TO_JOIN]
    process = subprocess.Popen(
        command, env={**os.environ, "RANK": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "joining\n"
        time.sleep(1.0)  # it is in C by now
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 75
    assert f"rank 1: {number.name} before the first step" in said


def test_a_rank_that_has_begun_notes_the_signal() -> None:
    done = subprocess.run([sys.executable, "-c", BEGINS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "received\n"), done.stderr
