"""A line now and then about how many tasks of a stage are done."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from data_tools.pipelines.work import Stage, Work
from data_tools.wording import counted

_SECONDS_BETWEEN_LINES = 15.0


@contextlib.contextmanager
def watched(stage: Stage, work: Work) -> Iterator[None]:
    """Say on standard error that a stage begins, how far it is, and that it has ended; nothing where all is done."""
    begun = len(work.unfinished(stage))
    if not begun:
        yield
        return
    print(f"{stage.name}: {begun} of {counted(stage.tasks, 'task')} to do; logs in {work.logs(stage)}", file=sys.stderr)
    started, ended = time.monotonic(), threading.Event()

    def report() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LINES):
            done = stage.tasks - len(work.unfinished(stage))
            print(f"{stage.name}: {done} of {counted(stage.tasks, 'task')} done", file=sys.stderr)

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()
    print(f"{stage.name}: done in {time.monotonic() - started:.1f} s", file=sys.stderr)
