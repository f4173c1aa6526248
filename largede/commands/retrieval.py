"""The verbs that search, and find negatives: encode, bm25, mine."""

import argparse
import functools
from pathlib import Path

from largede.commands.shared import MODEL, add_collection_flags, add_compute_flag, add_lucene_flags
from largede.processors import processors
from largede.verbs import Verb, finite, positive, raise_on_sigterm


def add_encode_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help=MODEL)
    parser.add_argument("--corpus", type=Path, required=True, help="folder in BEIR format, or a JSONL file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the embedding shards")
    parser.add_argument(
        "--side", choices=("passage", "query"), default="passage", help="which tower reads the texts (%(default)s)"
    )
    parser.add_argument("--max-tokens", type=positive, default=512, help="texts are cut there (%(default)s)")
    parser.add_argument("--shard-size", type=positive, help="texts in one shard (512 to 50,000, by the corpus's size)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of the stored vectors (%(default)s)",
    )
    parser.add_argument("--pyserini", type=Path, metavar="DIR", help="also write what Pyserini's FaissSearcher reads")
    add_compute_flag(parser)


def run_encode(args: argparse.Namespace) -> None:
    from largede.evaluation.opened_model import open_any_model
    from largede.retrieval.corpus import open_corpus
    from largede.retrieval.encode import EncodeSettings, encode_corpus, open_embeddings
    from largede.retrieval.processes import this_process
    from largede.retrieval.pyserini_folder import write_pyserini_folder

    process = this_process()
    work = args.out.with_name(f"{args.out.name}.model")
    model = open_any_model(args.model, work, device=process.device, dtype=args.compute_dtype, process=process)
    file = "queries.jsonl" if args.side == "query" else "corpus.jsonl"
    corpus = open_corpus(args.corpus / file if args.corpus.is_dir() else args.corpus)
    settings = EncodeSettings(args.side, args.max_tokens, args.shard_size, args.dtype)
    done = encode_corpus(model, corpus, args.out, settings, process)
    print(f"{done:,} of {len(corpus):,} texts embedded now, the others were there already: {args.out}", flush=True)
    if args.pyserini and process.is_first:
        written = write_pyserini_folder(open_embeddings(args.out, wait=True), args.pyserini)
        print(f"{args.pyserini} {'written' if written else 'unchanged, skipped'}", flush=True)


ENCODE = Verb(
    "encode",
    "turn a corpus into embedding shards; resumable, alone or on every rank of a launcher",
    "largede encode --model models/base --corpus data/nfcorpus --out embeddings/nfcorpus",
    add_encode_flags,
    run_encode,
)


def add_bm25_flags(parser: argparse.ArgumentParser) -> None:
    add_collection_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and bm25.json")
    parser.add_argument(
        "--fields",
        nargs="+",
        choices=("flat", "multifield"),
        default=["flat"],
        help="title and text as one field, or as two whose scores are added (flat)",
    )
    parser.add_argument("--k1", type=finite, default=0.9, help="(%(default)s, as Anserini's)")
    parser.add_argument("--b", type=finite, default=0.4, help="(%(default)s, as Anserini's)")
    parser.add_argument(
        "--tune", action="store_true", help="choose k1 and b on the dev split of each collection that has one"
    )
    parser.add_argument("--threads", type=positive, default=processors(), help="(%(default)s)")
    add_lucene_flags(parser)


def run_bm25(args: argparse.Namespace) -> None:
    from largede.evaluation.baseline import baseline_lines, bm25_baseline, open_lexical_task
    from largede.evaluation.datasets.collections import open_collections
    from largede.retrieval.bm25 import Bm25Settings
    from largede.retrieval.corpus import Corpus

    raise_on_sigterm()
    heap_mib = round(args.java_memory_gib * 1024) if args.java_memory_gib else None
    settings = [
        Bm25Settings(args.k1, args.b, threads=args.threads, fields=fields, heap_mib=heap_mib)
        for fields in dict.fromkeys(args.fields)
    ]
    collections = open_collections(args.data, split=args.split, cache=args.cache, offline=args.offline)
    corpora: dict[Path, Corpus] = {}
    tasks = [open_lexical_task(collection, corpora, dev=args.tune) for collection in collections]
    results = bm25_baseline(tasks, args.out, settings, tune=args.tune, index_cache=args.index_cache)
    print("\n".join(baseline_lines(results)))


BM25 = Verb(
    "bm25",
    "the lexical baseline alone, as Anserini publishes it",
    "largede bm25 --data data/nfcorpus --out results/bm25",
    add_bm25_flags,
    run_bm25,
)


def add_mine_flags(parser: argparse.ArgumentParser) -> None:
    from largede.retrieval.mine.flags import add_flags

    parser.add_argument("--model", type=Path, help=f"{MODEL}; BM25 alone needs none")
    add_flags(parser)
    add_compute_flag(parser)


def run_mine(args: argparse.Namespace) -> None:
    from largede.retrieval.mine.flags import job_from_flags, settings_from_flags

    raise_on_sigterm()
    say = functools.partial(print, flush=True)
    if args.follow is not None:
        from largede.refresh.follow import FollowSettings, follow

        follow(FollowSettings.from_flags(args, settings_from_flags(args)), say)
        return
    from largede.evaluation.opened_model import open_any_model
    from largede.retrieval.encoder import Model
    from largede.retrieval.mine.stages import mine
    from largede.retrieval.processes import this_process

    process = this_process()

    def open_one(path: Path) -> Model:
        work = args.out / "work" / "models"
        return open_any_model(path, work, device=process.device, dtype=args.compute_dtype, process=process)

    mine(job_from_flags(args, open_one), process, say)


MINE = Verb(
    "mine",
    "hard negatives for training pairs, from dense lists, BM25 or both; or anew from a run's newest checkpoint",
    "largede mine --model models/base --data pairs --out mined --from dense bm25 --ranks 30-200 --margin 0.05\n"
    "  largede-data shard mined/pairs --out shards\n"
    "  largede mine --follow runs/base --ranks 30-200",
    add_mine_flags,
    run_mine,
)
