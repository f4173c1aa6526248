"""How many processors there are for this process."""

import os


def processors() -> int:
    """Those this process may use: fewer than the machine has within a batch job or a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
