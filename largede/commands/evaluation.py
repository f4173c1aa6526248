"""The verbs that measure: evaluate, report, measure, latency, datasets."""

import argparse
import functools
from pathlib import Path

from largede.commands.shared import add_collection_flags, add_compute_flag, add_lucene_flags
from largede.processors import processors
from largede.verbs import Verb, above_zero, finite, positive, raise_on_sigterm, some_words


def add_evaluate_flags(parser: argparse.ArgumentParser) -> None:
    from largede.retrieval.search_settings import INDEX_KINDS, add_search_flags

    parser.add_argument(
        "--model", type=Path, required=True, help="model folder (ours or sentence-transformers'), run or checkpoint"
    )
    add_collection_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, figures and report")
    parser.add_argument(
        "--baseline", action="append", default=[], metavar="NAME=FOLDER", help="another model beside it"
    )
    parser.add_argument("--dev", help="collection to choose weights on, instead of each one's own development split")
    parser.add_argument("--measures", nargs="+", metavar="MEASURE", help="instead of each collection's: nDCG@10 MAP …")
    parser.add_argument("--depth", type=positive, default=1000, help="documents in each ranked list (%(default)s)")
    parser.add_argument("--max-query-tokens", type=positive, help="instead of each collection's (64, ArguAna 512)")
    parser.add_argument("--max-passage-tokens", type=positive, help="instead of each collection's (512 or 768)")
    parser.add_argument(
        "--store-dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of the stored vectors (%(default)s)",
    )
    parser.add_argument("--shard-size", type=positive, help="passages in one shard of embeddings; empty: by the corpus")
    add_compute_flag(parser)
    parser.add_argument("--training", type=Path, help="run folder whose TensorBoard curves the report shows")
    parser.add_argument("--title", type=some_words, default="Retrieval report")
    add_search_flags(parser)
    parser.add_argument(
        "--compare-indexes", nargs="+", default=[], choices=INDEX_KINDS, help="what each finds, takes and costs"
    )
    _add_lexical_flags(parser)


def _add_lexical_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("BM25, fusion and re-ranking")
    group.add_argument("--no-bm25", action="store_true", help="dense alone: no BM25, no fusion, no Java")
    group.add_argument(
        "--bm25-fields",
        nargs="+",
        choices=("flat", "multifield"),
        default=["flat"],
        help="title and text as one field, or each its own; the first is fused and re-ranked (%(default)s)",
    )
    group.add_argument("--bm25-k1", type=finite, default=0.9, help="(%(default)s, Anserini's)")
    group.add_argument("--bm25-b", type=finite, default=0.4, help="(%(default)s, Anserini's)")
    group.add_argument("--bm25-threads", type=positive, default=processors())
    group.add_argument("--tune-bm25", action="store_true", help="choose k1 and b on the development split")
    add_lucene_flags(group)
    group.add_argument(
        "--fusion",
        choices=("scores", "ranks"),
        default="scores",
        help="what the weight is given to: scores scaled to 0 .. 1, or 1 / (60 + rank)",
    )
    group.add_argument(
        "--rerank", type=positive, nargs="+", default=[], metavar="DEPTH", help="the model on BM25's best: 100 1000"
    )


def run_evaluate(args: argparse.Namespace) -> None:
    from largede.evaluation.evaluate import open_evaluation, run_stages
    from largede.evaluation.job import job_from_flags
    from largede.evaluation.opened_model import open_any_model
    from largede.retrieval.encoder import Model
    from largede.retrieval.processes import this_process

    raise_on_sigterm()
    process = this_process()

    def open_one(path: Path) -> Model:
        work = args.out / "models"
        return open_any_model(path, work, device=process.device, dtype=args.compute_dtype, process=process)

    run_stages(open_evaluation(job_from_flags(args, open_one), process))


EVALUATE = Verb(
    "evaluate",
    "encode, search, BM25, fusion, figures and report; finished stages are skipped",
    "largede evaluate --model models/base --data data/nfcorpus data/scifact --out results/base",
    add_evaluate_flags,
    run_evaluate,
)


def add_report_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="--out folders of `largede evaluate`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new report")


def run_report(args: argparse.Namespace) -> None:
    from largede.evaluation.report.comparison import rewrite_report

    print(rewrite_report(args.folders, args.out), flush=True)


REPORT = Verb(
    "report",
    "the report of finished evaluations again, or several models side by side; needs no data and no model",
    "largede report results/base results/large --out results/side-by-side",
    add_report_flags,
    run_report,
)


def add_measure_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", type=Path, nargs="+", required=True, metavar="FILE", help="TREC run files", dest="runs"
    )
    parser.add_argument("--qrels", type=Path, required=True, help="judgements: four columns as TREC's, or BEIR's TSV")
    parser.add_argument(
        "--measures",
        nargs="+",
        default=["nDCG@10", "Recall@100", "MRR@10"],
        metavar="MEASURE",
        help="(nDCG@10 Recall@100 MRR@10)",
    )
    parser.add_argument(
        "--relevant-from", type=positive, default=1, metavar="GRADE", help="trec_eval's -l (%(default)s)"
    )
    parser.add_argument("--depth", type=positive, help="only the first so many documents of each list: trec_eval's -M")
    parser.add_argument("--per-query", type=Path, metavar="FILE.json", help="write all figures, of every query too")


def run_measure(args: argparse.Namespace) -> None:
    from largede.evaluation.measures.measure import as_json, as_table, measure_runs
    from largede.files import write_json

    runs = measure_runs(args.runs, args.qrels, args.measures, args.relevant_from, args.depth)
    if args.per_query is not None:
        write_json(args.per_query, as_json(runs))
    print(as_table(runs))


MEASURE = Verb(
    "measure",
    "figures of TREC run files, per query too, as trec_eval -c has them; which run is better, and how surely",
    "largede measure --run bm25.trec dense.trec --qrels qrels.txt --measures nDCG@10 MAP Recall@1000",
    add_measure_flags,
    run_measure,
)


def add_latency_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="model folder, or a preset such as gtr-base (random weights)")
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 4, 8, 16, 32, 64], help="queries in one call")
    parser.add_argument("--length", type=positive, nargs="+", default=[16, 32, 64, 128], help="tokens of a query")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 …; empty: a GPU if there is one")
    parser.add_argument("--threads", type=positive, help="on a CPU; empty: all")
    parser.add_argument("--compile", action="store_true", help="torch.compile the query tower, once for each shape")
    parser.add_argument("--tokenizer", help="of a preset, folder or hub name; without it tokens are drawn")
    parser.add_argument("--seconds", type=above_zero, default=10.0, help="of calls for each row (%(default)s)")
    parser.add_argument("--calls", type=positive, default=20, help="for each row, however long they take (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write every figure and the machine there")
    add_compute_flag(parser)


def run_latency(args: argparse.Namespace) -> None:
    from largede.errors import DataError
    from largede.evaluation.latency.measure import LatencyJob, measure_latency
    from largede.files import write_json

    if args.out is not None and args.out.is_dir():
        raise DataError(f"--out {args.out} is a folder", expected="a file", mend=f"write {args.out / 'latency.json'}")
    job = LatencyJob(
        model=args.model,
        batches=tuple(args.batch),
        lengths=tuple(args.length),
        device=args.device,
        compute_dtype=args.compute_dtype,
        threads=args.threads,
        compile=args.compile,
        tokenizer=args.tokenizer,
        seconds=args.seconds,
        calls=args.calls,
    )
    found = measure_latency(job, functools.partial(print, flush=True))
    if args.out is not None:
        write_json(args.out, found)


LATENCY = Verb(
    "latency",
    "milliseconds and queries a second by batch and length, on a CPU or a GPU, beside the paper's",
    "largede latency --model models/base --batch 1 8 64 --length 32 128 --compute-dtype bfloat16",
    add_latency_flags,
    run_latency,
)


def add_datasets_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="*", metavar="NAME", help="what to download now; without any, the catalogue is listed"
    )
    parser.add_argument(
        "--cache", type=Path, help="folder of collections (datasets in LARGEDE_CACHE, ~/.cache/largede)"
    )
    parser.add_argument("--offline", action="store_true", help="fetch nothing; as LARGEDE_OFFLINE=1 does")


def run_datasets(args: argparse.Namespace) -> None:
    from largede.evaluation.datasets.listing import catalogue_lines, download_ahead

    raise_on_sigterm()
    if not args.words:
        print("\n".join(catalogue_lines(args.cache)))
        return
    for line in download_ahead(args.words, args.cache, args.offline):
        print(line, flush=True)


DATASETS = Verb(
    "datasets",
    "the collections that can be named: what they are, which are here; or download some ahead",
    "largede datasets nfcorpus scifact",
    add_datasets_flags,
    run_datasets,
)
