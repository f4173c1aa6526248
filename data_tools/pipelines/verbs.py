"""The verbs `filter`, `dedup` and `decontaminate`, and their flags; nothing heavy is imported before one runs."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from largede.verbs import Verb, finite, positive

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from data_tools.pipelines.job import Plan

Settings = TypeVar("Settings", bound="DataclassInstance")


def _common_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        type=Path,
        metavar="PAIRS",
        help="folders of pairs as JSON lines (plain, .gz, .zst), or files",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write; new or empty")
    add("--skip-bad", type=int, default=0, metavar="N", help="lines of each part that may be no pairs (%(default)s)")
    group = parser.add_argument_group("where it runs", "One task reads one part; the results are the same everywhere.")
    add = group.add_argument
    add("--executor", choices=("local", "slurm", "ray"), default="local", help="(%(default)s)")
    add("--workers", type=positive, metavar="N", help="tasks at a time (processors of this machine; Slurm: no limit)")
    add("--tasks-per-job", type=positive, default=1, metavar="N", help="tasks of a Slurm or Ray job (%(default)s)")
    add("--memory-gib", type=positive, default=4, metavar="N", help="memory of a Slurm or Ray job (%(default)s)")
    add("--slurm-partition", metavar="NAME", help="partition of the jobs")
    add("--slurm-time", metavar="HH:MM:SS", help="time limit of a job")
    add("--slurm-qos", metavar="NAME", help="quality of service, where the cluster asks for one")
    add("--wait", action="store_true", help="stay until the Slurm jobs have ended")


def _settings(kind: type[Settings], args: argparse.Namespace, **given: Any) -> Settings:
    """The settings of a pipeline, each field from the flag of its name, but for those given."""
    names = (field.name for field in fields(kind) if field.name not in given)
    return kind(**{name: getattr(args, name) for name in names}, **given)


def _run(plan: "Plan", args: argparse.Namespace) -> None:
    from data_tools.pipelines.executors import executor_of
    from data_tools.pipelines.job import run_plan

    print(run_plan(plan, args.inputs, args.out, executor_of(args.executor, vars(args))))


def _filter_flags(parser: argparse.ArgumentParser) -> None:
    _common_flags(parser)
    add = parser.add_argument_group("what is kept").add_argument
    add("--min-query-words", type=int, default=2, metavar="N", help="(%(default)s)")
    add("--max-query-words", type=int, default=128, metavar="N", help="(%(default)s)")
    add("--min-passage-words", type=int, default=5, metavar="N", help="title included (%(default)s)")
    add("--max-passage-words", type=int, default=10_000, metavar="N", help="title included (%(default)s)")
    add("--languages", nargs="+", default=[], metavar="CODE", help="such as en de; any without this flag")
    add(
        "--language-confidence",
        type=finite,
        default=0.4,
        metavar="P",
        help="below it, another language is no reason (%(default)s)",
    )
    add(
        "--max-allowed-share",
        type=finite,
        default=0.2,
        metavar="P",
        help="nor is it where the allowed ones are as probable as this (%(default)s)",
    )
    add("--min-score", type=finite, metavar="S", help="pairs without a score are kept")
    add(
        "--min-letters",
        type=finite,
        default=0.5,
        metavar="X",
        help="share of the characters, links aside (%(default)s)",
    )
    add("--max-links", type=finite, default=0.5, metavar="X", help="share of the characters (%(default)s)")
    add("--max-repeated-lines", type=finite, default=0.5, metavar="X", help="share of the lines (%(default)s)")
    add("--keep-boilerplate", action="store_true", help="leave out all checks for boilerplate")


def _run_filter(args: argparse.Namespace) -> None:
    from data_tools.pipelines.filters import FilterSettings, filter_plan

    languages = tuple(sorted(set(args.languages)))
    settings = _settings(FilterSettings, args, languages=languages, boilerplate=not args.keep_boilerplate)
    _run(filter_plan(settings, args.skip_bad), args)


def _dedup_flags(parser: argparse.ArgumentParser) -> None:
    _common_flags(parser)
    add = parser.add_argument_group("what counts as nearly equal").add_argument
    add("--query-similarity", type=finite, default=0.8, metavar="X", help="least Jaccard similarity (%(default)s)")
    add("--passage-similarity", type=finite, default=0.7, metavar="X", help="least Jaccard similarity (%(default)s)")
    add("--bands", type=int, default=14, metavar="N", help="chances to match; 0: exact duplicates only (%(default)s)")
    add("--query-hashes", type=positive, default=3, metavar="N", help="of the query in each band (%(default)s)")
    add("--passage-hashes", type=positive, default=3, metavar="N", help="of the passage in each band (%(default)s)")
    add("--query-ngram", type=positive, default=2, metavar="N", help="words of a shingle of the query (%(default)s)")
    add(
        "--passage-ngram", type=positive, default=5, metavar="N", help="words of a shingle of the passage (%(default)s)"
    )
    add(
        "--whole-query-words",
        type=positive,
        default=20,
        metavar="N",
        help="a query of fewer words is similar only to the same text (%(default)s)",
    )
    add(
        "--whole-passage-words",
        type=positive,
        default=30,
        metavar="N",
        help="a passage of fewer words is similar only to the same text (%(default)s)",
    )
    add("--seed", type=int, default=1, help="seed of the hash functions (%(default)s)")


def _run_dedup(args: argparse.Namespace) -> None:
    from data_tools.pipelines.dedup import DedupSettings, dedup_plan

    settings = _settings(DedupSettings, args)
    _run(dedup_plan(settings, args.skip_bad), args)


def _decontaminate_flags(parser: argparse.ArgumentParser) -> None:
    _common_flags(parser)
    add = parser.add_argument_group("what it must not hold").add_argument
    add("--against", required=True, nargs="+", type=Path, metavar="BEIR_DIR", help="collections in BEIR format")
    add("--split", default="test", help="whose queries and passages are test texts (%(default)s)")
    add("--ngram", type=positive, default=13, metavar="N", help="words in a row that may not be shared (%(default)s)")
    add(
        "--shortest-run",
        type=positive,
        default=8,
        metavar="N",
        help="shorter test texts from this many words on may not stand inside a text either (%(default)s)",
    )
    add(
        "--shortest-query",
        type=positive,
        default=4,
        metavar="N",
        help="test queries from this many words on may not stand inside a training query (%(default)s)",
    )
    add("--queries-only", action="store_true", help="the relevant passages of the collections may be trained on")


def _run_decontaminate(args: argparse.Namespace) -> None:
    from data_tools.pipelines.decontaminate import DecontaminateSettings, decontaminate_plan

    settings = _settings(DecontaminateSettings, args)
    _run(decontaminate_plan(args.against, settings, args.skip_bad), args)


PIPELINE_VERBS: tuple[Verb, ...] = (
    Verb(
        "filter",
        "Leave out pairs by length, language, score and boilerplate; every one is counted.",
        "largede-data filter pairs --out filtered --languages en --min-score 1",
        _filter_flags,
        _run_filter,
    ),
    Verb(
        "dedup",
        "Keep the first of pairs that are equal or nearly so in query and passage.",
        "largede-data dedup filtered --out unique",
        _dedup_flags,
        _run_dedup,
    ),
    Verb(
        "decontaminate",
        "Leave out pairs that share words with test queries or their relevant passages.",
        "largede-data decontaminate unique --out clean --against beir/nfcorpus beir/scifact",
        _decontaminate_flags,
        _run_decontaminate,
    ),
)
