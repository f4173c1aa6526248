"""The whole matrix: every case of the product, the mistakes, the rows beyond it; writes RESULTS.md beside this file.

PYTHONPATH=tests:tests/training .venv/bin/python -m exactness --help
"""

import argparse
import hashlib
import json
import os
import tempfile
import threading
import time
from pathlib import Path

from ranks import run_on_ranks

from exactness.factors import LEVELS, covering_array, full_product
from exactness.matrix import (
    Question,
    Result,
    answer_questions,
    broken_bf16_questions,
    broken_questions,
    extra_questions,
    product_questions,
)
from exactness.table import commit, write_table

HERE = Path(__file__).resolve().parent
SECONDS_BETWEEN_LINES = 20.0


def main() -> None:
    options = read_options()
    # Ranks share the cores; more threads each would only fight.
    os.environ["OMP_NUM_THREADS"] = "1"
    file = options.results / f"exactness-{fingerprint()}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    questions = all_questions(options.pairs)
    earlier = {key: result for path in options.also for key, result in read_results(path).items()}
    if not options.table:
        for ranks in options.ranks:
            answer_for(ranks, [q for q in questions if q.key not in earlier], file)
    results = [r for r in (earlier | read_results(file)).values() if r.question in set(questions)]
    options.out.write_text(write_table(results, len(questions), options.hardware), encoding="utf-8")
    wrong = sum(not r.is_as_it_should for r in results)
    print(f"{len(results):,} of {len(questions):,} questions answered, {wrong} not as they should be: {options.out}")
    raise SystemExit(1 if wrong else 0)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m exactness", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=LEVELS["ranks"], help="numbers of ranks to run")
    parser.add_argument("--pairs", action="store_true", help="the pairwise array instead of the full product")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table of what has been answered")
    parser.add_argument(
        "--also", type=Path, nargs="+", default=[], metavar="FILE", help="keep what an earlier commit answered"
    )
    parser.add_argument("--results", type=Path, default=Path("runs"), help="folder of the answers found so far")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md", help="where the table is written")
    parser.add_argument("--hardware", default="2 CPU cores (AMD EPYC)", help="what the table says it was run on")
    return parser.parse_args()


def all_questions(pairs_only: bool) -> list[Question]:
    array = covering_array()
    cases = array if pairs_only else full_product()
    extras = [q for ranks in LEVELS["ranks"] for q in extra_questions(ranks) + broken_bf16_questions(ranks, 4)]
    return product_questions(cases) + broken_questions(array) + extras


def answer_for(ranks: int, questions: list[Question], file: Path) -> None:
    """Answer what is still open for one number of ranks, in a process group of its own."""
    found = read_results(file)
    still_open = [q for q in questions if q.case.ranks == ranks and q.key not in found]
    if not still_open:
        return
    finished = threading.Event()
    watcher = threading.Thread(target=say_progress, args=(ranks, len(still_open), len(found), file, finished))
    watcher.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run_on_ranks(ranks, answer_questions, Path(folder), folder, still_open, str(file), commit())
    finally:
        finished.set()
        watcher.join()


def say_progress(ranks: int, count: int, before: int, file: Path, finished: threading.Event) -> None:
    started = time.monotonic()
    while not finished.wait(SECONDS_BETWEEN_LINES):
        done = len(read_results(file)) - before
        seconds = time.monotonic() - started
        left = f"{seconds / done * (count - done) / 60:.0f} min left" if done else "starting"
        print(f"{ranks} rank(s): {done:,} of {count:,}, {done / seconds:.1f} a second, {left}", flush=True)


def read_results(file: Path) -> dict[str, Result]:
    """Answers found so far, by question. A last line cut off by an interruption is left out."""
    found = {}
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.is_file() else []
    for line in lines:
        try:
            result = Result.from_tree(json.loads(line))
        except ValueError:
            continue  # the rest of an interrupted line, completed by the next run's first one
        found[result.question.key] = result
    return found


def fingerprint() -> str:
    """Of all code that the answers depend on: answers of other code are not taken for this one's."""
    package = HERE.parents[2] / "largede"
    harness = [p for p in HERE.glob("*.py") if p.name not in ("table.py", "__main__.py")]
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py"), *harness, HERE.parent / "batches_for_tests.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    main()
