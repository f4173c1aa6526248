"""The most memory that a verb takes of its one process does not grow with what it reads."""

import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from beir_folder import write_collection
from pair_parts import write_parts

PARTS, PAIRS = 4, 700
"""Of the small input; the large one has four times as many parts."""
WORDS = {"shard": 1500, "filter": 250, "dedup": 250, "decontaminate": 250}
"""In a passage. What `shard` may take is at least a sixteenth of a GiB, and its input must be more than that."""
WORD_BYTES = 8

FLAGS = {
    "shard": ["--memory-gib", "0.0625", "--shard-pairs", "256"],
    "filter": [],
    "dedup": [],
    "decontaminate": ["--against", "BEIR"],
}
_MEASURED = """
import sys
from pathlib import Path
from data_tools.cli import main
assert main(sys.argv[1:]) == 0
# Not ru_maxrss, which a process takes over from the one that started it.
print(int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) / 1024)
"""


def made_pairs(part: int, passage_words: int) -> Iterator[dict[str, Any]]:
    """Pairs of a part, each of words drawn for it alone."""
    draw = random.Random(part)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=WORD_BYTES - 1)) for _ in range(4000)]
    for _ in range(PAIRS):
        yield {"query": " ".join(draw.choices(words, k=10)), "positive": " ".join(draw.choices(words, k=passage_words))}


def peak_mib(verb: str, times: int, folder: Path) -> float:
    """Of a process that does the work alone, on `times` as many parts as the small input has."""
    parts = [made_pairs(part, WORDS[verb]) for part in range(times * PARTS)]
    # A pipeline reads part by part; `shard` is to be bounded whatever the length of a file.
    pairs = write_parts(folder / f"pairs-{times}", [chain(*parts)] if verb == "shard" else parts)
    flags = [str(folder / "beir") if flag == "BEIR" else flag for flag in FLAGS[verb]]
    command = [verb, str(pairs), "--out", str(folder / f"out-{times}"), "--workers", "1", *flags]
    done = subprocess.run([sys.executable, "-c", _MEASURED, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("verb", FLAGS)
def test_four_times_the_pairs_take_no_more_memory(verb: str, tmp_path: Path) -> None:
    write_collection(tmp_path / "beir")
    more_text_mib = 3 * PARTS * PAIRS * WORDS[verb] * WORD_BYTES / 2**20
    small, large = (peak_mib(verb, times, tmp_path) for times in (1, 4))
    # The small input is less than `shard` may hold, so up to that it takes more for the large one (107 MiB for this and
    # for twice as much).
    assert large - small < more_text_mib / (2 if verb == "shard" else 4)
