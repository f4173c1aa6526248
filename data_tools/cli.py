"""The verbs of largede-data; a table, and nothing heavy imported before a verb runs."""

import argparse
import sys
from pathlib import Path

from data_tools.pipelines.verbs import PIPELINE_VERBS
from largede.verbs import Verb, positive, run_verbs


def _shard_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="PAIRS", help="JSON lines, plain, .gz or .zst")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write; new or empty")
    parser.add_argument(
        "--shard-pairs", type=positive, default=65536, metavar="N", help="pairs in a shard (%(default)s)"
    )
    parser.add_argument("--block-pairs", type=positive, default=256, metavar="N", help="pairs in a block (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the shuffle (%(default)s)")
    parser.add_argument("--skip-bad", type=int, default=0, metavar="N", help="bad lines to pass over (%(default)s)")


def _run_shard(args: argparse.Namespace) -> None:
    from data_tools.shard import ShardSettings, shard

    settings = ShardSettings(args.shard_pairs, args.block_pairs, args.seed, args.skip_bad)
    print(shard(args.inputs, args.out, settings))


def _verify_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder written by `largede-data shard`")
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="shards checked at a time (one for each processor)"
    )


def _run_verify(args: argparse.Namespace) -> None:
    from data_tools.verify import demand_sound, verify

    index, problems = verify(args.folder, args.threads)
    demand_sound(args.folder, problems)
    blocks = sum(len(shard.blocks) for shard in index.shards)
    print(f"{args.folder} is sound: {index.samples:,} pairs, {blocks:,} blocks, {len(index.shards)} shards")


def _pairs_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", choices=["python-docs"], help="documentation strings of the installed packages")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="folder to write; new or empty")
    parser.add_argument("--seed", type=int, default=0, help="seed of the held-out samples (%(default)s)")


def _run_pairs(args: argparse.Namespace) -> None:
    from data_tools.python_docs import write_python_docs

    corpus = write_python_docs(args.out, args.seed)
    sizes = f"{len(corpus.train):,} training, {len(corpus.test):,} test and {len(corpus.dev):,} development pairs"
    print(f"{args.out} holds {sizes}")


def _vocabulary_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="PAIRS", help="JSON lines, plain, .gz or .zst")
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
        "Make pairs of questions and passages from a source.",
        "largede-data pairs python-docs corpus",
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
)


def main(argv: list[str] | None = None) -> int:
    return run_verbs("largede-data", "Raw text into pairs, pairs into shards.", VERBS, argv)


if __name__ == "__main__":
    sys.exit(main())
