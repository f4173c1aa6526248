"""How a command line made of verbs is parsed and run; shared by `largede` and `largede-data`."""

import argparse
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from largede import __version__
from largede.errors import LargedeError, MachineError
from largede.runs.redact import hide_in_message


class Terminated(KeyboardInterrupt):
    """SIGTERM came, where a program has it raised."""


def raise_on_sigterm() -> None:
    """SIGTERM ends this program as Ctrl-C does: what is half done is tidied up."""

    def leave(number: int, frame: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, leave)


@dataclass(frozen=True)
class Verb:
    """One subcommand: a line for the overview, an example for its own help, its flags, and what it does.

    With `takes_settings`, recipe settings (`--group.key value`) may follow; they arrive as `args.settings`.
    """

    name: str
    summary: str
    example: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    takes_settings: bool = False


def run_verbs(program: str, description: str, verbs: Sequence[Verb], argv: list[str] | None = None) -> int:
    """Run one verb.

    Exit status 0: done; 2: the input cannot be used, said in one message; 130: interrupted; 143: terminated.
    """
    parser = build_parser(program, description, verbs)
    args, settings = parser.parse_known_args(argv)
    if settings and not args.takes_settings:
        parser.error(f"{args.verb} does not know {' '.join(settings)}")
    args.settings = settings
    try:
        args.run(args)
    except LargedeError as error:
        print(f"{program} {args.verb}: {hide_in_message(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output (head, less) left; that is its right.
        sys.stderr.close()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        problem = MachineError(
            f"{where}{error.strerror or error}",
            expected="paths that can be read and written, folders where folders are asked for",
            mend="check the path and its permissions, or name another",
        )
        print(f"{program} {args.verb}: {hide_in_message(str(problem))}", file=sys.stderr)
        return 2
    except Terminated:
        print(f"{program} {args.verb}: terminated", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print(f"{program} {args.verb}: interrupted", file=sys.stderr)
        return 130
    return 0


def enter(main: Callable[[], int]) -> NoReturn:
    """Run `main` as this process and leave with its status, without taking the interpreter apart.

    The threads of a gloo group live on after `destroy_process_group`. Now and then one wakes while the interpreter
    shuts down, which aborts the process: a finished run would count as failed.
    """
    try:
        status = main()
    except SystemExit as leaving:
        status = status_of(leaving)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError, ValueError):  # the reader has left, or the stream was closed
            stream.flush()
    os._exit(status)


def status_of(leaving: SystemExit) -> int:
    """As the interpreter sees it: no code is success, a text is printed and is failure."""
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    print(leaving.code, file=sys.stderr)
    return 1


def positive(text: str) -> int:
    """A flag's value that counts something: 1, 2, 3 …"""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


def finite(text: str) -> float:
    """A flag's value that measures something: any number but nan and the infinities."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number")
    return value


def above_zero(text: str) -> float:
    """A flag's value that measures something there must be some of."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above zero")
    return value


def niceness(text: str) -> int:
    if not text.isdecimal() or int(text) > 19:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 19")
    return int(text)


def some_words(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("empty; leave the flag out for its default")
    return text


def path_given(word: str) -> Path:
    """The type of every flag of type Path. An empty word would be the current folder, and is a variable left unset."""
    if not word:
        raise argparse.ArgumentTypeError("an empty path; write . for the current folder")
    return Path(word)


def build_parser(program: str, description: str, verbs: Sequence[Verb]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=description, allow_abbrev=False)
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
        sub.register("type", Path, path_given)
        verb.add_flags(sub)
        sub.set_defaults(run=verb.run, takes_settings=verb.takes_settings)
    return parser
