"""The verbs of largede. Each verb is two short functions: its flags, and the call into the room that does the work.

Nothing heavy is imported before a verb runs: `largede --help` needs neither torch nor transformers.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from largede import __version__
from largede.errors import LargedeError, RecipeError


@dataclass(frozen=True)
class Verb:
    """One subcommand: a line for the overview, an example for its own help, its flags, and what it does."""

    name: str
    summary: str
    example: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--help-recipe", action="store_true", help="list every setting with its unit, and leave")
    parser.add_argument("recipe", nargs="?", help="YAML file, or the name of a recipe shipped with largede")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, help="--group.key value, as many as wanted")


def run_train(args: argparse.Namespace) -> None:
    from largede.config.load import load_recipe
    from largede.config.recipe import describe_settings

    if args.help_recipe:
        print(describe_settings())
        return
    if args.recipe is None:
        raise RecipeError("no recipe", expected="largede train RECIPE", mend="name a YAML file; --help-recipe lists all")
    recipe = load_recipe(args.recipe, args.overrides)

    from largede.training.trainer import train

    train(recipe)


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a step-… folder, or a run folder (its newest checkpoint)")
    parser.add_argument("out", type=Path, help="the new folder")


def run_export(args: argparse.Namespace) -> None:
    from largede.training.export import export_checkpoint

    export_checkpoint(args.checkpoint, args.out)
    print(f"exported {args.checkpoint} to {args.out}")


VERBS: tuple[Verb, ...] = (
    Verb(
        "train",
        "train a dual encoder; alone, or on every rank under the deepspeed launcher",
        "deepspeed --module largede.cli train gtr-base-pretrain --data.shards shards/ --run.out runs/base",
        add_train_flags,
        run_train,
    ),
    Verb(
        "export",
        "write a checkpoint as a folder that sentence-transformers loads",
        "largede export runs/base/checkpoints/step-00020000 models/base",
        add_export_flags,
        run_export,
    ),
)


def build_parser(verbs: tuple[Verb, ...]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="largede", description="Train, evaluate and ship large T5 dual encoders.")
    parser.add_argument("--version", action="version", version=f"largede {__version__}")
    # The deepspeed launcher puts its own flag first; the rank is taken from the environment.
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in verbs:
        sub = subparsers.add_parser(
            verb.name,
            help=verb.summary,
            description=verb.summary,
            epilog=f"example:\n  {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.add_flags(sub)
        sub.set_defaults(run=verb.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Exit status 0: done; 2: the input cannot be used, said in one message; 130: interrupted."""
    args = build_parser(VERBS).parse_args(argv)
    try:
        args.run(args)
    except LargedeError as error:
        print(f"largede {args.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"largede {args.verb}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
