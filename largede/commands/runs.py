"""The verbs that look at runs: watch, runs."""

import argparse
from pathlib import Path

from largede.commands.shared import add_collection_flags, add_compute_flag
from largede.errors import RecipeError
from largede.verbs import Verb, above_zero, finite, niceness, positive, raise_on_sigterm


def add_watch_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the run folder (run.out)")
    add_collection_flags(parser)
    parser.add_argument("--once", action="store_true", help="evaluate what is there, and leave")
    parser.add_argument(
        "--checkpoint", action="append", default=[], metavar="step-…", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--metric",
        type=str.lower,
        default="ndcg@10",
        help="what the best is the best by: mean over the collections; fused-ndcg@10 of the fused list (%(default)s)",
    )
    parser.add_argument(
        "--patience", type=positive, metavar="N", help="stop the run after N checkpoints in a row without improvement"
    )
    parser.add_argument("--min-delta", type=finite, default=0.0, help="what counts as improvement (%(default)s)")
    parser.add_argument(
        "--every", type=above_zero, default=30.0, metavar="SECONDS", help="between two looks (%(default)s)"
    )
    parser.add_argument("--no-bm25", action="store_true", help="dense alone: no BM25, no fusion, no Java")
    parser.add_argument("--max-query-tokens", type=positive, help="instead of each collection's")
    parser.add_argument("--max-passage-tokens", type=positive, help="instead of each collection's")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … of the evaluation; empty: a GPU if there is one")
    parser.add_argument("--threads", type=positive, help="of the evaluation on a CPU; empty: all")
    parser.add_argument("--nice", type=niceness, default=10, help="the evaluation's niceness, 0 to 19 (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep exported models, embeddings and ranked lists")
    add_compute_flag(parser)


def run_watch(args: argparse.Namespace) -> None:
    from largede.evaluation.watching.checkpoint_evaluation import CheckpointJob
    from largede.evaluation.watching.watch import WatchSettings, watch

    if args.no_bm25 and args.metric.startswith("fused-"):
        raise RecipeError(
            f"--metric {args.metric} with --no-bm25", expected="a fused list to measure", mend="leave one of them out"
        )
    job = CheckpointJob(
        run=str(args.run_folder),
        checkpoint="",
        data=tuple(args.data),
        metric=args.metric,
        split=args.split,
        bm25=not args.no_bm25,
        max_query_tokens=args.max_query_tokens,
        max_passage_tokens=args.max_passage_tokens,
        device=args.device,
        compute_dtype=args.compute_dtype,
        threads=args.threads,
        nice=args.nice,
        keep=args.keep,
        cache=str(args.cache) if args.cache else None,
        offline=args.offline,
    )
    raise_on_sigterm()
    watch(
        WatchSettings(job, tuple(args.checkpoint), args.once, args.every, args.patience, args.min_delta),
        lambda line: print(line, flush=True),
    )


WATCH = Verb(
    "watch",
    "evaluate every checkpoint of a run as it appears; mark the best; stop a run that no longer improves",
    "largede watch runs/base --data data/nfcorpus data/scifact --patience 5",
    add_watch_flags,
    run_watch,
)


def add_runs_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="*", default=[Path("runs")], metavar="FOLDER", help="(runs)")
    parser.add_argument("--json", action="store_true", help="every field, for programs")


def run_runs(args: argparse.Namespace) -> None:
    from largede.runs.table import as_json, as_table, list_runs

    runs = list_runs(args.folders)
    print(as_json(runs) if args.json else as_table(runs))


RUNS = Verb(
    "runs",
    "the runs below some folders: state, step, loss, best figure and its checkpoint, commit, hardware, data",
    "largede runs runs/",
    add_runs_flags,
    run_runs,
)
