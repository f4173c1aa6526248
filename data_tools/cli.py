"""The verbs of largede-data; a table, and nothing heavy imported before a verb runs."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from data_tools.format import Format, add_option_flags, options_from
from data_tools.pipelines.verbs import PIPELINE_VERBS
from data_tools.readers import FORMATS
from data_tools.termination import raising_on_sigterm
from largede.verbs import Verb, finite, positive, run_verbs


def _shard_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="PAIRS", help="JSON lines, plain, .gz or .zst, or folders of such files"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write; new or empty")
    parser.add_argument(
        "--shard-pairs", type=positive, default=65536, metavar="N", help="most pairs in a shard (%(default)s)"
    )
    parser.add_argument("--block-pairs", type=positive, default=256, metavar="N", help="pairs in a block (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the shuffle (%(default)s)")
    parser.add_argument("--skip-bad", type=int, default=0, metavar="N", help="bad lines to pass over (%(default)s)")
    parser.add_argument(
        "--query-fraction",
        type=finite,
        default=1.0,
        metavar="F",
        help="share of queries to keep, with all their pairs",
    )
    parser.add_argument(
        "--fraction-seed", type=int, default=0, metavar="SEED", help="seed of that choice of queries (%(default)s)"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (one for each processor)")
    parser.add_argument(
        "--memory-gib",
        type=finite,
        metavar="GIB",
        help="memory of all processes (1 for each); one shard is held at least",
    )


def _run_shard(args: argparse.Namespace) -> None:
    from data_tools.shard import shard
    from data_tools.shard_settings import Machine, ShardSettings
    from largede.processors import processors

    settings = ShardSettings(
        args.shard_pairs, args.block_pairs, args.seed, args.skip_bad, args.query_fraction, args.fraction_seed
    )
    print(shard(args.inputs, args.out, settings, Machine(args.workers or processors(), args.memory_gib)))


def _add_place_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", metavar="DIR", help="folder written by `largede-data shard`, or the URL of one")
    parser.add_argument("--allow-pipe", action="store_true", help="let DIR be pipe:COMMAND with {name}")


def _place(args: argparse.Namespace) -> Any:
    from largede.streams.places import place_of

    return place_of(args.place, allow_pipe=args.allow_pipe)


def _verify_flags(parser: argparse.ArgumentParser) -> None:
    _add_place_flags(parser)
    parser.add_argument("--quick", action="store_true", help="look at the index and the sizes of the files alone")
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (one for each processor)")


def _run_verify(args: argparse.Namespace) -> None:
    from data_tools.verify import verify
    from data_tools.wording import counted

    verdict = verify(_place(args), args.workers, args.quick)
    verdict.demand_sound()
    index = verdict.index
    blocks = sum(len(shard.blocks) for shard in index.shards)
    how = "has all its files, at their sizes" if args.quick else "is sound"
    sizes = (index.samples, "pair"), (blocks, "block"), (len(index.shards), "shard")
    print(f"{args.place} {how}: {', '.join(counted(*size) for size in sizes)}")


def _inspect_flags(parser: argparse.ArgumentParser) -> None:
    _add_place_flags(parser)
    parser.add_argument("--samples", type=int, default=5, metavar="N", help="pairs to show (%(default)s)")
    parser.add_argument("--blocks", type=positive, default=64, metavar="N", help="blocks to look at (%(default)s)")
    parser.add_argument("--all", action="store_true", help="look at all blocks instead")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice (%(default)s)")
    parser.add_argument("--tokenizer", metavar="NAME", help="folder or name of a tokenizer: lengths in tokens as well")
    parser.add_argument(
        "--max-query-tokens", type=positive, default=64, metavar="N", help="limit to count cut queries at (%(default)s)"
    )
    parser.add_argument(
        "--max-passage-tokens", type=positive, default=512, metavar="N", help="the same for passages (%(default)s)"
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="picture of the lengths to write")
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (one for each processor)")


def _run_inspect(args: argparse.Namespace) -> None:
    from data_tools.inspect import InspectSettings, inspect

    settings = InspectSettings(
        samples=args.samples,
        blocks=None if args.all else args.blocks,
        seed=args.seed,
        tokenizer=args.tokenizer,
        max_query_tokens=args.max_query_tokens,
        max_passage_tokens=args.max_passage_tokens,
        picture=args.png,
        workers=args.workers,
    )
    for line in inspect(_place(args), settings):
        print(line)


def _pairs_flags(parser: argparse.ArgumentParser) -> None:
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    for format in FORMATS:
        sub = _format_parser(formats, format.name, format.summary, format.example)
        sub.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help=format.inputs)
        _frame_flags(sub)
        add_option_flags(sub, format.options)
        sub.set_defaults(run_format=partial(_run_format, format))
    summary = "Documentation strings of the installed Python packages, with held-out collections."
    sub = _format_parser(formats, "python-docs", summary, "largede-data pairs python-docs --out corpus")
    sub.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write; new or empty")
    sub.add_argument("--seed", type=int, default=0, help="seed of the held-out samples (%(default)s)")
    sub.set_defaults(run_format=_run_python_docs)


def _format_parser(formats: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = formats.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _frame_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write; new or empty")
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (one for each processor)")
    parser.add_argument(
        "--part-pairs", type=positive, default=100_000, metavar="N", help="most pairs in a part (%(default)s)"
    )
    parser.add_argument(
        "--max-bytes",
        type=positive,
        metavar="N",
        help="most text that a compressed input may hold (1 GiB, or 200 times its size where that is more)",
    )


def _run_pairs(args: argparse.Namespace) -> None:
    args.run_format(args)


def _run_format(format: Format, args: argparse.Namespace) -> None:
    from data_tools.make_pairs import PairsSettings, make_pairs
    from largede.processors import processors

    settings = PairsSettings(args.workers or processors(), args.part_pairs, args.max_bytes)
    print(make_pairs(format, options_from(args, format.options), args.inputs, args.out, settings))


def _run_python_docs(args: argparse.Namespace) -> None:
    from data_tools.python_docs import write_python_docs

    corpus = write_python_docs(args.out, args.seed)
    sizes = f"{len(corpus.train):,} training, {len(corpus.test):,} test and {len(corpus.dev):,} development pairs"
    print(f"{args.out} holds {sizes}")


def _vocabulary_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="PAIRS", help="JSON lines, plain, .gz or .zst, or folders of such files"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write; new or empty")
    parser.add_argument("--size", type=positive, default=8000, metavar="N", help="pieces (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of texts (%(default)s)")


def _run_vocabulary(args: argparse.Namespace) -> None:
    from data_tools.vocabulary import write_vocabulary

    write_vocabulary(args.inputs, args.out, args.size, args.seed)
    print(f"{args.out} holds a vocabulary of {args.size:,} pieces")


VERBS: tuple[Verb, ...] = (
    Verb(
        "pairs",
        "Turn a published data set or dump into pairs of questions and passages.",
        "largede-data pairs stackexchange beer.stackexchange.com.7z --out beer",
        _pairs_flags,
        _run_pairs,
    ),
    Verb(
        "vocabulary",
        "Train a SentencePiece vocabulary in T5's layout on pairs.",
        "largede-data vocabulary pairs.jsonl --out vocabulary --size 8000",
        _vocabulary_flags,
        _run_vocabulary,
    ),
    *PIPELINE_VERBS,
    Verb(
        "shard",
        "Shuffle pairs and write them as shards of blocks with an index.",
        "largede-data shard pairs.jsonl.gz --out shards --seed 1",
        _shard_flags,
        _run_shard,
    ),
    Verb(
        "verify",
        "Check every checksum, count and block of a folder of shards.",
        "largede-data verify shards",
        _verify_flags,
        _run_verify,
    ),
    Verb(
        "inspect",
        "Show pairs, sources, lengths and duplicates of a folder of shards.",
        "largede-data inspect shards --tokenizer vocabulary --png lengths.png",
        _inspect_flags,
        _run_inspect,
    ),
)


def main(argv: list[str] | None = None) -> int:
    with raising_on_sigterm():
        return run_verbs("largede-data", "Raw text into pairs, pairs into shards.", VERBS, argv)


if __name__ == "__main__":
    sys.exit(main())
