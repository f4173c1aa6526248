"""What a format of `largede-data pairs` is: a reader, its options as flags, and how its records come together."""

import argparse
import dataclasses
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.dropped import Dropped
from largede.errors import DataError
from largede.verbs import finite

Record = tuple[bytes, bytes]
"""Key and content. Records of one key come together."""

Reader = Callable[[Path, Any, Dropped], Iterator[Any]]
Grouping = Callable[[bytes, list[bytes], Any, Dropped], Iterator[Any]]


def plain_files(inputs: Sequence[Path], options: Any) -> list[Path]:
    """The inputs themselves, each of which has to be a file."""
    for path in inputs:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise DataError(f"{path} {what}", expected="a file", mend="correct the path")
    return list(inputs)


@dataclass(frozen=True)
class Format:
    """One format, found by `name`.

    `read(path, options, dropped)` yields the pairs of one input file, independent of all others. With `groupings` it
    yields records instead, and each grouping `(key, records, options, dropped)` turns the records of one key, from all
    inputs, into records of the next grouping; the last one into pairs. Records of a key come in the order of the
    inputs. All of these are functions of a module, because they run in other processes, and depend on their arguments
    alone, because a stopped run goes on elsewhere.

    `options` is a frozen dataclass made with `option`; its fields become flags. `files(inputs, options)` are the files
    to read, in order: those given, unless the format knows more (the files of a folder, paths among its options).
    """

    name: str
    summary: str
    example: str
    options: type
    read: Reader
    groupings: tuple[Grouping, ...] = ()
    files: Callable[[Sequence[Path], Any], list[Path]] = plain_files
    inputs: str = "a file, plain or compressed"


def option(default: Any, sentence: str, choices: Sequence[str] = (), metavar: str | None = None) -> Any:
    """A field of a format's options: what its flag says in --help, and what it may be."""
    return dataclasses.field(
        default=default, metadata={"help": sentence, "choices": tuple(choices), "metavar": metavar}
    )


def add_option_flags(parser: argparse.ArgumentParser, options: type) -> None:
    """A flag for each field: --min-score for `min_score`. Fields are bool, str, int, float or Path, or None."""
    kinds = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        flag, kind = f"--{field.name.replace('_', '-')}", kinds[field.name]
        sentence = field.metadata["help"]
        if field.default not in (None, "") and kind is not bool:
            sentence += " (%(default)s)"
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default, help=sentence)
            continue
        value = next(k for k in (*typing.get_args(kind), kind) if k is not type(None))
        parser.add_argument(
            flag,
            type=finite if value is float else value,
            default=field.default,
            choices=field.metadata["choices"] or None,
            metavar=field.metadata["metavar"] or (None if field.metadata["choices"] else value.__name__.upper()),
            help=sentence,
        )


def options_from(args: argparse.Namespace, options: type) -> Any:
    return options(**{field.name: getattr(args, field.name) for field in dataclasses.fields(options)})


def options_as_json(options: Any) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in dataclasses.asdict(options).items()
    }
