"""Waiting for another process, which may take hours, and saying so."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta

LOOK_EVERY_S = 0.2
SAY_EVERY_S = 60.0


def wait_until(ready: Callable[[], bool], what: str) -> None:
    """Return once it is ready; every minute, a line on the error stream tells what is waited for and since when.

    There is no limit: only who started the processes knows how long they may take, and whether one has died.
    """
    begin = said = time.monotonic()
    while not ready():
        now = time.monotonic()
        if now - said >= SAY_EVERY_S:
            said = now
            waited = timedelta(seconds=round(now - begin))
            print(f"waiting for {what} since {waited}; if its process has died, stop and start again", file=sys.stderr)
        time.sleep(LOOK_EVERY_S)
