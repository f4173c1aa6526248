"""Flags that several verbs have."""

import argparse
from pathlib import Path

from largede.verbs import above_zero

MODEL = "a folder that `largede export` or sentence-transformers wrote, a run folder, or a step-… folder"


def add_collection_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="NAME_OR_FOLDER",
        help="names of `largede datasets` (beir: all public ones), folders in BEIR format, squad:FILE or reqa:FILE",
    )
    parser.add_argument("--split", help="the qrels file to report, instead of each collection's (test; msmarco: dev)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where downloaded collections lie")
    parser.add_argument("--offline", action="store_true", help="never ask the network (also LARGEDE_OFFLINE=1)")


def add_lucene_flags(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--index-cache", type=Path, metavar="DIR", help="folder of the Lucene indexes (bm25/ in the cache of largede)"
    )
    parser.add_argument(
        "--java-memory-gib", type=above_zero, metavar="GIB", help="heap of Java (half of the free memory, at most 8)"
    )


def add_compute_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--compute-dtype", choices=("float32", "bfloat16"), default="float32", help="of the model (%(default)s)"
    )
