"""A claim whose holder is, or was, on another machine."""

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

from largede.runs.claims import UNKNOWN, Claim, Holder, holder_of


def holder_elsewhere(path: Path, silent_s: float) -> Holder:
    claim = Claim(path)
    claim.take()
    claim._ending.set()
    there = replace(holder_of(path) or UNKNOWN, host="node7", machine="node7 of another boot")
    path.write_text(json.dumps(asdict(there)))
    os.utime(path, (time.time() - silent_s, time.time() - silent_s))
    return there
