"""The flags of `largede mine` and what they say. Imports nothing heavy: every `--help` passes through here."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from largede.errors import DataError
from largede.processors import processors
from largede.verbs import above_zero, finite, niceness, positive

if TYPE_CHECKING:
    from largede.retrieval.encoder import Model
    from largede.retrieval.mine.settings import MineSettings
    from largede.retrieval.mine.stages import MineJob


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        help="files or folders of pairs, or one folder in BEIR format; with --follow where the run's shards lie now",
    )
    parser.add_argument("--out", type=Path, help="folder of the mined pairs, their summary and the work for them")
    parser.add_argument("--split", default="train", help="of a folder in BEIR format: the qrels file (%(default)s)")
    parser.add_argument("--max-positives", type=positive, default=1000, help="pairs of one judged query (%(default)s)")
    parser.add_argument("--corpus", type=Path, help="take negatives from this corpus.jsonl, not from the positives")
    parser.add_argument("--embeddings", type=Path, help="of that corpus, by --model: made before with largede encode")
    _add_choice_flags(parser)
    _add_work_flags(parser)
    _add_follow_flags(parser)


def _add_choice_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("which candidates become negatives").add_argument
    add("--from", dest="lists", nargs="+", choices=("dense", "bm25"), default=["dense"], help="lists (dense)")
    add("--shares", type=finite, nargs="+", default=[], help="part of the negatives from each list; empty: equal ones")
    add("--negatives", type=positive, default=7, help="of a pair, at most (%(default)s)")
    add("--ranks", type=ranks, default=(1, 200), metavar="FIRST-LAST", help="window of each list (1-200)")
    add("--pick", choices=("sample", "top"), default="sample", help="draw from the window, or its first (%(default)s)")
    add("--margin", type=finite, help="a negative's dense score is at least this below the positive's")
    add("--max-share", type=finite, help="a negative's dense score is at most this share of the positive's")
    add("--agreement", action="store_true", help="leave out what both lists put above the positive")
    add("--same-group", action="store_true", help="allow passages of the pair's own group")
    add("--seed", type=int, default=0, help="of the draw (%(default)s)")


def _add_work_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how the work is done").add_argument
    add("--max-query-tokens", type=positive, help="(64; with --follow as the run's recipe says)")
    add("--max-passage-tokens", type=positive, help="(512; with --follow as the run's recipe says)")
    add("--window", type=positive, default=50_000, help="pairs whose lists are held at a time (%(default)s)")
    add("--threads", type=positive, default=processors(), help="of BM25 (%(default)s)")


def _add_follow_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("beside a run").add_argument
    add("--follow", type=Path, metavar="RUN", help="mine anew from each new checkpoint, for data.refresh_steps")
    add("--once", action="store_true", help="mine from the newest checkpoint, and leave")
    add("--every", type=above_zero, default=30.0, metavar="SECONDS", help="between two looks (%(default)s)")
    add("--nice", type=niceness, default=10, help="niceness of the mining (%(default)s)")
    add("--device", help="cpu, cuda, cuda:1 …; empty: a GPU if there is one")


def ranks(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no window of ranks such as 30-200")
    return int(first), int(last)


def settings_from_flags(args: argparse.Namespace) -> "MineSettings":
    """Raises DataError for settings that do not fit each other."""
    from largede.retrieval.mine.settings import MineSettings

    return MineSettings(
        lists=tuple(args.lists),
        negatives=args.negatives,
        ranks=args.ranks,
        pick=args.pick,
        shares=tuple(args.shares),
        margin=args.margin,
        max_share=args.max_share,
        agreement=args.agreement,
        same_group=args.same_group,
        seed=args.seed,
        max_query_tokens=args.max_query_tokens or 64,
        max_passage_tokens=args.max_passage_tokens or 512,
        window=args.window,
        bm25_threads=args.threads,
    )


def job_from_flags(args: argparse.Namespace, open_one: Callable[[Path], "Model"]) -> "MineJob":
    """Raises DataError or ModelError for what a flag names and is not there."""
    from largede.retrieval.corpus import open_corpus
    from largede.retrieval.mine.sources import open_source
    from largede.retrieval.mine.stages import MineJob

    for flag in ("data", "out"):
        if getattr(args, flag) is None:
            raise DataError(f"no --{flag}", expected="--data and --out, or --follow RUN", mend=f"give --{flag}")
    settings = settings_from_flags(args)
    corpus = open_corpus(args.corpus) if args.corpus else None
    model = open_one(args.model) if args.model else None
    return MineJob(
        open_source(args.data, args.split, args.max_positives, corpus), model, args.out, settings, args.embeddings
    )
