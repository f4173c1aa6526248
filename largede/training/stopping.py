"""Why a run leaves before its last step; all ranks come to the same answer after the same step."""

import os
import signal
import threading
from enum import IntEnum
from typing import Any

from largede.runs.files import stop_reason
from largede.training.collectives import group_device, max_over_ranks, rank
from largede.training.run_life import EXIT_SAVED_ON_SIGNAL, RunLife

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stop(IntEnum):
    """The larger counts when ranks see several."""

    NO = 0
    ASKED = 1  # stop.json is in the run folder: save and leave with status 0
    SIGNAL = 2  # SIGTERM or SIGUSR1: save and leave with the status that the launcher starts again
    FOLDER_LOST = 3  # another run has taken the folder: leave and touch nothing


class StopRequest:
    """SIGTERM or SIGUSR1 on any rank, or what rank 0 finds in the run folder."""

    def __init__(self, life: RunLife) -> None:
        self.received = False
        self.life = life
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)
        stop_leaving_at_once()

    def _note(self, number: int, frame: Any) -> None:
        self.received = True

    def asked(self) -> Stop:
        """The same on all ranks. Collective, so it is asked after every step, once.

        What the ranks agree on is not written back: a signal that arrives meanwhile counts after the next step.
        """
        return Stop(max_over_ranks(self._own(), group_device()))

    def _own(self) -> Stop:
        if rank() == 0 and self.life.is_lost:
            return Stop.FOLDER_LOST
        if self.received:
            return Stop.SIGNAL
        return Stop.ASKED if rank() == 0 and stop_reason(self.life.folder) else Stop.NO


def leave_at_once_on_signal() -> None:
    """SIGTERM or SIGUSR1 before the first step ends this process: there is nothing to save, and the run is as it was.

    By a thread, because a rank that waits in C for the others to join runs no handler of Python for up to two hours;
    and not by an exception, which would wait for the other ranks on its way out. `StopRequest` ends the thread.
    """
    stop_leaving_at_once()
    told, tells = os.pipe()
    os.set_blocking(tells, False)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: None)  # so that it neither kills nor is ignored
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    threading.Thread(target=_leave_when_told, args=(told,), name="leave on a signal", daemon=True).start()


def stop_leaving_at_once() -> None:
    """From now on the signals' handlers count, and they alone."""
    tells = signal.set_wakeup_fd(-1)
    if tells != -1:
        os.close(tells)


def _leave_when_told(told: int) -> None:
    while number := os.read(told, 1):
        if number[0] in STOP_SIGNALS:
            name, rank_here = signal.Signals(number[0]).name, os.environ.get("RANK", 0)
            os.write(2, f"rank {rank_here}: {name} before the first step\n".encode())
            os._exit(EXIT_SAVED_ON_SIGNAL)
    os.close(told)
