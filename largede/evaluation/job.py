"""What to evaluate, as one frozen value, and how the command line says it."""

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path

from largede.errors import DataError
from largede.evaluation.curves import Curves, read_curves
from largede.retrieval.bm25 import Bm25Settings
from largede.retrieval.encoder import Model, open_model


@dataclass(frozen=True)
class EvaluationJob:
    """A model, collections in BEIR format and a folder for what comes out.

    `bm25` None leaves out BM25 and fusion; `dev` is a folder in BEIR format to choose the fusion weight on, instead of
    the `dev` split of each collection; `baselines` are set beside the model under their names; `about` goes into the
    report line by line, `curves` as pictures.
    """

    model: Model
    data: tuple[Path, ...]
    out: Path
    split: str = "test"
    dev: Path | None = None
    bm25: Bm25Settings | None = Bm25Settings()
    baselines: tuple[Model, ...] = ()
    max_query_tokens: int = 64
    max_passage_tokens: int = 512
    shard_size: int = 50_000
    depth: int = 1000
    seed: int = 0
    title: str = "Retrieval report"
    about: dict[str, str] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)


def job_from_flags(args: argparse.Namespace, device: str | None) -> EvaluationJob:
    """The job of `largede evaluate`. Raises DataError or ModelError for what a flag names and is not there."""
    return EvaluationJob(
        model=open_model(args.model, device=device, dtype=args.compute_dtype),
        data=tuple(args.data),
        out=args.out,
        split=args.split,
        dev=args.dev,
        bm25=None if args.no_bm25 else Bm25Settings(),
        baselines=tuple(_baseline(words, device, args.compute_dtype) for words in args.baseline),
        max_query_tokens=args.max_query_tokens,
        max_passage_tokens=args.max_passage_tokens,
        title=args.title,
        curves=read_curves(args.training) if args.training else {},
    )


def _baseline(words: str, device: str | None, dtype: str) -> Model:
    name, equals, folder = words.partition("=")
    if not (name and equals and folder):
        raise DataError(f"--baseline {words}", expected="NAME=FOLDER", mend="name the model as the table should")
    return replace(open_model(Path(folder), device=device, dtype=dtype), name=name)
