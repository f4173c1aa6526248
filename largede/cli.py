"""The verbs of largede. Each verb is two short functions: its flags, and the call into the room that does the work.

Nothing heavy is imported before a verb runs: `largede --help` needs neither torch nor transformers.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from largede import __version__
from largede.errors import LargedeError


@dataclass(frozen=True)
class Verb:
    """One subcommand: a line for the overview, an example for its own help, its flags, and what it does."""

    name: str
    summary: str
    example: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


VERBS: tuple[Verb, ...] = ()


def build_parser(verbs: tuple[Verb, ...]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="largede", description="Train, evaluate and ship large T5 dual encoders.")
    parser.add_argument("--version", action="version", version=f"largede {__version__}")
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
