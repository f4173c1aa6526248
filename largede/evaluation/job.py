"""What to evaluate, as one frozen value, and how the command line says it."""

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from largede.errors import DataError, RecipeError
from largede.evaluation.datasets.collection import Collection
from largede.evaluation.datasets.collections import open_collections
from largede.evaluation.report.curves import Curves, read_curves
from largede.retrieval.bm25 import Bm25Settings
from largede.retrieval.encode import StoredDtype
from largede.retrieval.encoder import Model
from largede.retrieval.fuse import Fusion
from largede.retrieval.search_settings import IndexKind, SearchSettings, search_settings_from_flags


@dataclass(frozen=True)
class EvaluationJob:
    """A model, collections and a folder for what comes out.

    `bm25` may hold several kinds of fields: the first is fused and re-ranked; empty, there is no BM25 and no fusion.
    `tune_bm25` chooses k1 and b, and the fusion its weight, on `dev`, or on the development split of each collection.
    `rerank` are depths of BM25's list that the model puts in its own order. `baselines` are set beside the model under
    their names. Lengths and measures that are None are those of each collection. `compared` are kinds of index to be
    compared with exact search. `about` goes into the report line by line, `curves` as pictures.
    """

    model: Model
    data: tuple[Collection, ...]
    out: Path
    dev: Collection | None = None
    bm25: tuple[Bm25Settings, ...] = (Bm25Settings(),)
    tune_bm25: bool = False
    rerank: tuple[int, ...] = ()
    fusion: Fusion = "scores"
    bm25_index_cache: Path | None = None
    baselines: tuple[Model, ...] = ()
    measures: tuple[str, ...] | None = None
    max_query_tokens: int | None = None
    max_passage_tokens: int | None = None
    shard_size: int | None = None
    store_dtype: StoredDtype = "float32"
    search: SearchSettings = SearchSettings()
    compared: tuple[IndexKind, ...] = ()
    depth: int = 1000
    seed: int = 0
    title: str = "Retrieval report"
    about: dict[str, str] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)


def job_from_flags(args: argparse.Namespace, open_one: Callable[[Path], Model]) -> EvaluationJob:
    """The job of `largede evaluate`. Raises LargedeError for whatever a flag names and is not there."""
    needing = [flag for flag in ("rerank", "tune_bm25", "dev") if getattr(args, flag)]
    if args.no_bm25 and needing:
        given = f"--no-bm25 with --{needing[0].replace('_', '-')}"
        raise RecipeError(given, expected="BM25's list for it", mend="leave one of them out")
    collections = functools.partial(open_collections, cache=args.cache, offline=args.offline)
    return EvaluationJob(
        model=open_one(args.model),
        data=collections(args.data, split=args.split),
        out=args.out,
        dev=_only(collections([args.dev])) if args.dev else None,
        bm25=() if args.no_bm25 else _bm25_from_flags(args),
        tune_bm25=args.tune_bm25,
        rerank=tuple(dict.fromkeys(args.rerank)),
        fusion=args.fusion,
        bm25_index_cache=args.index_cache,
        baselines=tuple(_baseline(words, open_one) for words in args.baseline),
        measures=tuple(dict.fromkeys(args.measures)) if args.measures else None,
        max_query_tokens=args.max_query_tokens,
        max_passage_tokens=args.max_passage_tokens,
        shard_size=args.shard_size,
        store_dtype=args.store_dtype,
        search=search_settings_from_flags(args),
        compared=tuple(dict.fromkeys(["flat", *args.compare_indexes])) if args.compare_indexes else (),
        depth=args.depth,
        title=args.title,
        curves=read_curves(args.training) if args.training else {},
    )


def _bm25_from_flags(args: argparse.Namespace) -> tuple[Bm25Settings, ...]:
    depth = max(args.depth, *args.rerank, 1)
    heap_mib = round(args.java_memory_gib * 1024) if args.java_memory_gib else None
    return tuple(
        Bm25Settings(args.bm25_k1, args.bm25_b, depth, args.bm25_threads, fields, heap_mib)
        for fields in dict.fromkeys(args.bm25_fields)
    )


def _only(collections: tuple[Collection, ...]) -> Collection:
    """The one to tune on: its development split where it has one, else the split it is reported on."""
    if len(collections) > 1:
        raise DataError(
            f"--dev with {len(collections)} collections", expected="one to choose weights on", mend="name one of them"
        )
    (found,) = collections
    return replace(found, split=found.dev_split or found.split)


def _baseline(words: str, open_one: Callable[[Path], Model]) -> Model:
    name, equals, folder = words.partition("=")
    if not (name and equals and folder):
        raise DataError(f"--baseline {words}", expected="NAME=FOLDER", mend="name the model as the table should")
    return replace(open_one(Path(folder)), name=name)
