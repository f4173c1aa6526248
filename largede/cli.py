"""The verbs of largede, in the order of their overview.

Nothing heavy is imported before a verb runs: `largede --help` needs neither torch nor transformers.
"""

from typing import NoReturn

from largede.commands import evaluation, retrieval, runs, training
from largede.verbs import Verb, enter, run_verbs

VERBS: tuple[Verb, ...] = (
    training.QUICKSTART,
    training.TRAIN,
    training.PLAN,
    training.EXPORT,
    retrieval.ENCODE,
    evaluation.EVALUATE,
    evaluation.REPORT,
    runs.WATCH,
    runs.RUNS,
    retrieval.MINE,
    retrieval.BM25,
    evaluation.MEASURE,
    evaluation.LATENCY,
    evaluation.DATASETS,
)


def main(argv: list[str] | None = None) -> int:
    return run_verbs("largede", "Train, evaluate and ship large T5 dual encoders.", VERBS, argv)


def run() -> NoReturn:
    """What the command `largede` is."""
    enter(main)


if __name__ == "__main__":
    run()
