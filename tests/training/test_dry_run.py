"""The dry run: the largest shape, and a clear message with the plan's numbers when it does not fit."""

import subprocess
import sys
from pathlib import Path

import pytest
from batches_for_tests import small_recipe

from largede.streams.chunks import make_chunks
from largede.training.dry_run import largest_batch

# In a process of its own with little address space left, as a small machine would have.
SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from batches_for_tests import small_recipe
from largede.training.engine import join_ranks, leave_ranks
from largede.training.construct import build_filled_engine
from largede.training.dry_run import dry_run, naming_the_plan
from largede.errors import MachineError

def leave_600_mib():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20, -1))

recipe = small_recipe(Path({folder!r}), 3, **{settings!r})
join_ranks(recipe.engine)
try:
    if {moment!r} == "building":
        leave_600_mib()
    engine = naming_the_plan(recipe, "the engine", lambda: build_filled_engine(recipe))
    print("built")
    leave_600_mib()
    dry_run(engine, recipe)
except MachineError as error:
    print("refused:", error)
leave_ranks(all_ranks_leave=True)
"""


def test_the_largest_batch_holds_the_longest_texts_and_the_fullest_chunk(tmp_path: Path) -> None:
    # A budget of 60 tokens holds two passages of 24, or three of 20; four queries of 15 rather than three of 16.
    recipe = small_recipe(tmp_path, data__hard_negatives=2)
    batch = largest_batch(recipe)
    assert len(batch) == recipe.batch.queries
    assert batch.queries.lengths.tolist() == [16] * 3 + [15] * 11
    assert batch.passages.lengths.tolist() == [24] * 2 + [20] * 40
    chunks = [chunk.computed_tokens for chunk in make_chunks(batch.passages, 60)[:2]]
    assert chunks == [48, 60]
    assert len(batch.passages) == 3 * recipe.batch.queries
    assert len(set(batch.query_keys.flatten()) | set(batch.negative_keys.flatten())) == 9 * recipe.batch.queries


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space of a process")
@pytest.mark.parametrize(
    ("moment", "settings", "what", "largest"),
    [
        ("building", {"model__backbone": "gtr-base"}, "the engine", "optimizer"),
        (
            "stepping",
            {"batch__queries": 4096, "batch__chunk_tokens": 524288, "data__max_passage_tokens": 512},
            "the largest step",
            "backward",
        ),
    ],
)
def test_too_little_memory_is_one_message_with_the_plans_numbers(
    moment: str, settings: dict[str, object], what: str, largest: str, tmp_path: Path
) -> None:
    tests = Path(__file__).resolve().parents[1]
    paths = [str(tests), str(tests / "training")]
    script = SHORT_OF_MEMORY.format(paths=paths, folder=str(tmp_path), moment=moment, settings=settings)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("built" in done.stdout) == (moment == "stepping")
    said = done.stdout[done.stdout.index("refused:") :]
    assert f"{what} of this recipe does not fit" in said
    assert f"fullest at: {largest}" in said and "GiB" in said
    assert "batch.chunk_tokens" in said
