"""The verbs of largede. Each verb is two short functions: its flags, and the call into the room that does the work.

Nothing heavy is imported before a verb runs: `largede --help` needs neither torch nor transformers.
"""

import argparse
import functools
from pathlib import Path
from typing import NoReturn

from largede.errors import RecipeError
from largede.processors import processors
from largede.unread import going_on_unread
from largede.verbs import Verb, above_zero, enter, finite, niceness, positive, raise_on_sigterm, run_verbs


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--help-recipe", action="store_true", help="list every setting with its unit, and leave")
    parser.add_argument("recipe", nargs="?", help="YAML file, or the name of a recipe shipped with largede")
    parser.add_argument(
        "--allow-pipe",
        action="store_true",
        help="let data.shards, or a source's, be a shell command: 'pipe:aws s3 cp s3://bucket/shards/{name} -'",
    )


def run_train(args: argparse.Namespace) -> None:
    from largede.config.load import load_recipe
    from largede.config.recipe import describe_settings

    if args.help_recipe:
        print(describe_settings())
        return
    if args.recipe is None:
        raise RecipeError(
            "no recipe", expected="largede train RECIPE", mend="name a YAML file; --help-recipe lists all"
        )
    recipe = load_recipe(args.recipe, args.settings)

    from largede.training.trainer import train

    with going_on_unread():
        train(recipe, allow_pipe=args.allow_pipe)


def add_plan_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="YAML file, or the name of a recipe shipped with largede")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    from largede.training.plan.flags import EXIT_DOES_NOT_FIT, add_machine_flags

    add_machine_flags(parser)
    parser.epilog = f"{parser.epilog}\n\nexit status: 0 if it fits, {EXIT_DOES_NOT_FIT} if it does not"


def run_plan(args: argparse.Namespace) -> None:
    from largede.config.load import load_recipe
    from largede.files import write_json
    from largede.training.plan import predict
    from largede.training.plan.flags import EXIT_DOES_NOT_FIT, machine_from_flags

    plan = predict(load_recipe(args.recipe, args.settings), machine_from_flags(args))
    print("\n".join(plan.lines()))
    if args.json is not None:
        write_json(args.json, plan.as_json())
    if not plan.fits:
        raise SystemExit(EXIT_DOES_NOT_FIT)


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a step-… folder, or a run folder (its newest checkpoint)")
    parser.add_argument("out", type=Path, help="the new folder")
    parser.add_argument(
        "--best",
        action="store_true",
        help="of a run folder: the best checkpoint by `largede watch` that is left, not the newest",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="replace an export of another checkpoint when the new one is whole; leave one of the same as it is",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the weights written (%(default)s: as the checkpoint holds them, nothing is lost)",
    )
    parser.add_argument(
        "--max-shard-gib", type=finite, default=4.0, help="more weights than this become several files (%(default)s)"
    )


def run_export(args: argparse.Namespace) -> None:
    from largede.training.best_checkpoint import best_checkpoint
    from largede.training.export import export_checkpoint

    raise_on_sigterm()
    say = functools.partial(print, flush=True)
    export_checkpoint(
        best_checkpoint(args.checkpoint, say) if args.best else args.checkpoint,
        args.out,
        dtype=args.dtype,
        max_shard_gib=args.max_shard_gib,
        again=args.again,
        say=say,
    )


def add_encode_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="folder written by `largede export`")
    parser.add_argument("--corpus", type=Path, required=True, help="folder in BEIR format, or a JSONL file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the embedding shards")
    parser.add_argument("--side", choices=("passage", "query"), default="passage", help="which tower reads the texts")
    parser.add_argument("--max-tokens", type=positive, default=512, help="texts are cut there")
    parser.add_argument("--shard-size", type=positive, default=50_000, help="texts in one shard")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the stored vectors")
    _add_compute_flag(parser)


def run_encode(args: argparse.Namespace) -> None:
    from largede.retrieval.corpus import open_corpus
    from largede.retrieval.encode import EncodeSettings, encode_corpus
    from largede.retrieval.encoder import open_model
    from largede.retrieval.processes import this_process

    process = this_process()
    model = open_model(args.model, device=process.device, dtype=args.compute_dtype)
    file = "queries.jsonl" if args.side == "query" else "corpus.jsonl"
    corpus = open_corpus(args.corpus / file if args.corpus.is_dir() else args.corpus)
    settings = EncodeSettings(args.side, args.max_tokens, args.shard_size, args.dtype)
    done = encode_corpus(model, corpus, args.out, settings, process)
    print(f"{done:,} of {len(corpus):,} texts embedded now, the others were there already: {args.out}", flush=True)


def add_bm25_flags(parser: argparse.ArgumentParser) -> None:
    _add_data_flags(parser)
    parser.add_argument("--k1", type=float, default=0.9)
    parser.add_argument("--b", type=float, default=0.4)
    parser.add_argument("--threads", type=int, default=processors())


def run_bm25(args: argparse.Namespace) -> None:
    from largede.evaluation.baseline import bm25_baseline
    from largede.retrieval.bm25 import Bm25Settings

    settings = Bm25Settings(args.k1, args.b, threads=args.threads)
    results = bm25_baseline(tuple(args.data), args.out, args.split, settings)
    for name, figures in results["figures"].items():
        print(name, *(f"{measure} {found['mean']:.4f}" for measure, found in figures.items()), sep="  ")


def add_evaluate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="folder written by `largede export`")
    _add_data_flags(parser)
    parser.add_argument("--dev", type=Path, help="folder in BEIR format to choose the fusion weight on")
    parser.add_argument("--no-bm25", action="store_true", help="dense alone: no BM25, no fusion, no Java")
    parser.add_argument(
        "--baseline", action="append", default=[], metavar="NAME=FOLDER", help="another model beside it"
    )
    parser.add_argument("--max-query-tokens", type=positive, default=64)
    parser.add_argument("--max-passage-tokens", type=positive, default=512)
    parser.add_argument("--training", type=Path, help="run folder whose TensorBoard curves the report shows")
    parser.add_argument("--title", default="Retrieval report")
    _add_compute_flag(parser)


def run_evaluate(args: argparse.Namespace) -> None:
    from largede.evaluation.evaluate import open_evaluation, run_stages
    from largede.evaluation.job import job_from_flags
    from largede.retrieval.processes import this_process

    process = this_process()
    run_stages(open_evaluation(job_from_flags(args, process.device), process))


def add_watch_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the run folder (run.out)")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in BEIR format")
    parser.add_argument("--split", default="test", help="the qrels file to evaluate on")
    parser.add_argument("--once", action="store_true", help="evaluate what is there, and leave")
    parser.add_argument(
        "--checkpoint", action="append", default=[], metavar="step-…", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--metric",
        choices=[f"{system}{name}" for system in ("", "fused-") for name in ("ndcg@10", "recall@100", "mrr@10")],
        default="ndcg@10",
        help="what the best is the best by: mean over the folders, of the dense list or the fused one (%(default)s)",
    )
    parser.add_argument(
        "--patience", type=positive, metavar="N", help="stop the run after N checkpoints in a row without improvement"
    )
    parser.add_argument("--min-delta", type=finite, default=0.0, help="what counts as improvement (%(default)s)")
    parser.add_argument(
        "--every", type=above_zero, default=30.0, metavar="SECONDS", help="between two looks (%(default)s)"
    )
    parser.add_argument("--no-bm25", action="store_true", help="dense alone: no BM25, no fusion, no Java")
    parser.add_argument("--max-query-tokens", type=positive, default=64)
    parser.add_argument("--max-passage-tokens", type=positive, default=512)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … of the evaluation; empty: a GPU if there is one")
    parser.add_argument("--threads", type=positive, help="of the evaluation on a CPU; empty: all")
    parser.add_argument("--nice", type=niceness, default=10, help="the evaluation's niceness, 0 to 19 (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep exported models, embeddings and ranked lists")
    _add_compute_flag(parser)


def run_watch(args: argparse.Namespace) -> None:
    from largede.evaluation.checkpoint_evaluation import CheckpointJob
    from largede.evaluation.watch import WatchSettings, watch

    if args.no_bm25 and args.metric.startswith("fused-"):
        raise RecipeError(
            f"--metric {args.metric} with --no-bm25", expected="a fused list to measure", mend="leave one of them out"
        )
    job = CheckpointJob(
        run=str(args.run_folder),
        checkpoint="",
        data=tuple(map(str, args.data)),
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
    )
    raise_on_sigterm()
    watch(
        WatchSettings(job, tuple(args.checkpoint), args.once, args.every, args.patience, args.min_delta),
        lambda line: print(line, flush=True),
    )


def add_runs_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="*", default=[Path("runs")], metavar="FOLDER", help="(runs)")
    parser.add_argument("--json", action="store_true", help="every field, for programs")


def run_runs(args: argparse.Namespace) -> None:
    from largede.runs.table import as_json, as_table, list_runs

    runs = list_runs(args.folders)
    print(as_json(runs) if args.json else as_table(runs))


def _add_data_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in BEIR format")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, figures and report")
    parser.add_argument("--split", default="test", help="the qrels file to evaluate on")


def _add_compute_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--compute-dtype", choices=("float32", "bfloat16"), default="float32", help="of the model")


def add_quickstart_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder of everything (%(default)s)")
    parser.add_argument("--minutes", type=float, default=5.0, help="time to train, in minutes (%(default)s)")


def run_quickstart(args: argparse.Namespace) -> None:
    from largede.quickstart import quickstart

    with going_on_unread():
        quickstart(args.out, args.minutes, args.settings)


VERBS: tuple[Verb, ...] = (
    Verb(
        "quickstart",
        "the whole main job on the documentation of the installed Python packages",
        "largede quickstart --minutes 5",
        add_quickstart_flags,
        run_quickstart,
        takes_settings=True,
    ),
    Verb(
        "train",
        "train a dual encoder; alone, or on every rank under the deepspeed launcher",
        "deepspeed --module largede.cli train gtr-base-pretrain --data.shards shards/ --run.out runs/base",
        add_train_flags,
        run_train,
        takes_settings=True,
    ),
    Verb(
        "plan",
        "memory by kind, step time and days of a recipe on given GPUs, whether it fits, and which knob to turn",
        "largede plan gtr-xxl-pretrain --gpus 64 --nodes 8 --gpu-gib 80",
        add_plan_flags,
        run_plan,
        takes_settings=True,
    ),
    Verb(
        "export",
        "write a checkpoint as a folder that sentence-transformers loads",
        "largede export runs/base/checkpoints/step-00020000 models/base",
        add_export_flags,
        run_export,
    ),
    Verb(
        "encode",
        "turn a corpus into embedding shards; resumable, alone or on every rank of a launcher",
        "largede encode --model models/base --corpus data/nfcorpus --out embeddings/nfcorpus",
        add_encode_flags,
        run_encode,
    ),
    Verb(
        "evaluate",
        "encode, search, BM25, fusion, figures and report; finished stages are skipped",
        "largede evaluate --model models/base --data data/nfcorpus data/scifact --out results/base",
        add_evaluate_flags,
        run_evaluate,
    ),
    Verb(
        "watch",
        "evaluate every checkpoint of a run as it appears; mark the best; stop a run that no longer improves",
        "largede watch runs/base --data data/nfcorpus data/scifact --patience 5",
        add_watch_flags,
        run_watch,
    ),
    Verb(
        "runs",
        "the runs below some folders: state, step, loss, best figure and its checkpoint, commit, hardware, data",
        "largede runs runs/",
        add_runs_flags,
        run_runs,
    ),
    Verb(
        "bm25",
        "the lexical baseline alone, as Anserini publishes it",
        "largede bm25 --data data/nfcorpus --out results/bm25",
        add_bm25_flags,
        run_bm25,
    ),
)


def main(argv: list[str] | None = None) -> int:
    return run_verbs("largede", "Train, evaluate and ship large T5 dual encoders.", VERBS, argv)


def run() -> NoReturn:
    """What the command `largede` is."""
    enter(main)


if __name__ == "__main__":
    run()
