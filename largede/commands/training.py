"""The verbs that make a model: quickstart, train, plan, export."""

import argparse
import functools
from pathlib import Path

from largede.errors import RecipeError
from largede.unread import going_on_unread
from largede.verbs import Verb, finite, raise_on_sigterm


def add_quickstart_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder of everything (%(default)s)")
    parser.add_argument("--minutes", type=float, default=5.0, help="time to train, in minutes (%(default)s)")


def run_quickstart(args: argparse.Namespace) -> None:
    from largede.quickstart import quickstart

    with going_on_unread():
        quickstart(args.out, args.minutes, args.settings)


QUICKSTART = Verb(
    "quickstart",
    "the whole main job on the documentation of the installed Python packages",
    "largede quickstart --minutes 5",
    add_quickstart_flags,
    run_quickstart,
    takes_settings=True,
)


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


TRAIN = Verb(
    "train",
    "train a dual encoder; alone, or on every rank under the deepspeed launcher",
    "deepspeed --module largede.cli train gtr-base-pretrain --data.shards shards/ --run.out runs/base",
    add_train_flags,
    run_train,
    takes_settings=True,
)


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


PLAN = Verb(
    "plan",
    "memory by kind, step time and days of a recipe on given GPUs, whether it fits, and which knob to turn",
    "largede plan gtr-xxl-pretrain --gpus 64 --nodes 8 --gpu-gib 80",
    add_plan_flags,
    run_plan,
    takes_settings=True,
)


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


EXPORT = Verb(
    "export",
    "write a checkpoint as a folder that sentence-transformers loads",
    "largede export runs/base/checkpoints/step-00020000 models/base",
    add_export_flags,
    run_export,
)
