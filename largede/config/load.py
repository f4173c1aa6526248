"""YAML and dotted flags into a `Recipe`, and a `Recipe` back into YAML.

Unknown keys are refused with the nearest valid name; every value is checked against the field's type, and the place
it came from (file or flag) is named in the message.
"""

import dataclasses
import difflib
import math
import os
import types
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from largede.config.recipe import Recipe
from largede.errors import RecipeError


def load_recipe(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read the recipe file `source` (a path, or the name of a recipe shipped with largede) and apply dotted flags.

    Args:
        source: YAML file; `quickstart` or `quickstart.yaml` also finds the shipped recipe of that name.
        overrides: words of the command line such as `--batch.queries 512` or `--batch.queries=512`.
    Raises:
        RecipeError: no such file, bad YAML, an unknown key, a value of the wrong type, or an impossible one.
    """
    path = find_recipe(source)
    tree = _read_yaml(path)
    for key, text in parse_overrides(overrides):
        value = _value(text, key)
        _set_dotted(tree, key, value)
        _refuse_wrong_flag(key, value)
    return recipe_from_tree(tree, where=str(path))


def find_recipe(source: str | Path) -> Path:
    """The path itself if it exists, else the recipe of that name inside the package."""
    path = Path(source)
    if path.is_file():
        return path
    shipped = Path(str(resources.files("largede.recipes")))
    candidate = shipped / f"{path.name.removesuffix('.yaml')}.yaml"
    if candidate.is_file() and path.parent == Path("."):
        return candidate
    names = ", ".join(sorted(p.stem for p in shipped.glob("*.yaml")))
    raise RecipeError(f"no recipe {str(source)!r}", expected=f"a YAML file, or one of: {names}", mend="check the path")


def recipe_from_tree(tree: Mapping[str, Any], where: str) -> Recipe:
    """Build and check the recipe from nested mappings; `where` names their source in messages."""
    groups = get_type_hints(Recipe)
    refuse_unknown(tree, groups, where)
    built = {}
    for name, kind in groups.items():
        values = tree.get(name) or {}
        if not isinstance(values, Mapping):
            raise RecipeError(
                f"{where}: {name} is {values!r}", expected="a group of settings", mend=f"indent the settings of {name}"
            )
        built[name] = _build_group(kind, name, values, where)
    return Recipe(**built)


def recipe_to_yaml(recipe: Recipe) -> str:
    """The resolved recipe; `load_recipe` of this text gives an equal recipe."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False)


def with_settings(recipe: Recipe, **dotted: Any) -> Recipe:
    """A copy with some settings replaced: `with_settings(recipe, run__steps=5)`; checked like any other recipe."""
    tree = dataclasses.asdict(recipe)
    for name, value in dotted.items():
        _set_dotted(tree, name.replace("__", "."), value)
    return recipe_from_tree(tree, where="settings")


def parse_overrides(words: Iterable[str]) -> list[tuple[str, str]]:
    """`['--a.b', '1', '--c.d=2']` becomes `[('a.b', '1'), ('c.d', '2')]`."""
    pairs: list[tuple[str, str]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise RecipeError(f"stray word {word!r}", expected="--group.key value", mend="put --group.key before it")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise RecipeError(f"--{key} has no value", expected="--group.key value", mend="add the value")
            value = rest.pop(0)
        pairs.append((key, value))
    return pairs


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}", expected="a YAML mapping", mend="mend the file") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds a {type(tree).__name__}", expected="groups of settings", mend="mend the file")
    return tree


def _value(text: str, key: str) -> Any:
    """What a word of the command line means for a setting; a text is taken letter by letter unless it is quoted."""
    options = _options(_hint_of(key))
    if set(options) - {types.NoneType} != {str}:
        return _scalar(text, key)
    if types.NoneType in options and text == "null":
        return None
    return _unquoted(text)


def _unquoted(text: str) -> str:
    """Without the quotes of YAML, if the whole text is in them: `'query: '` was written so for its blank."""
    if not text.startswith(("'", '"')):
        return text
    try:
        inner = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return inner if isinstance(inner, str) else text


def _hint_of(key: str) -> Any:
    """The type of the setting of that dotted name; None where there is no such setting."""
    kind: Any = Recipe
    for part in key.split("."):
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif dataclasses.is_dataclass(kind):
            kind = get_type_hints(kind).get(part)
        else:
            return None
    return kind


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _scalar(text: str, key: str) -> Any:
    try:
        return yaml.safe_load(text) if text != "" else ""
    except yaml.YAMLError:
        raise RecipeError(f"--{key} {text!r}", expected="a YAML scalar", mend="quote the value") from None


def _set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    group, _, name = key.partition(".")
    if not name or ("." in name and not _is_in_mapping(group, name)):
        raise RecipeError(
            f"--{key}", expected="--group.key, for example --batch.queries 512", mend=f"did you mean {nearest(key)}?"
        )
    *path, last = key.split(".")
    members: Any = tree
    for number, part in enumerate(path, start=1):
        if members.get(part) is None:
            members[part] = {}
        members = members[part]
        if not isinstance(members, dict):
            raise RecipeError(
                f"--{key}, where {'.'.join(path[:number])} is {members!r}",
                expected="a mapping there",
                mend="correct the recipe file, or the flag before it",
            )
    members[last] = value


def _refuse_wrong_flag(key: str, value: Any) -> None:
    """Sooner than the recipe is built, so that the file is not blamed for what a flag says."""
    hint, (group, _, name), where = _hint_of(key), key.partition("."), "the command line"
    if hint is not None:
        _typed(value, hint, key, where)
    elif "." not in name:
        groups = get_type_hints(Recipe)
        refuse_unknown([group], groups, where)
        refuse_unknown([name], get_type_hints(groups[group]), where, prefix=group, near=nearest)


def _is_in_mapping(group: str, name: str) -> bool:
    """Whether `name` goes on inside a mapping of the group, as in data.sources.NAME.weight."""
    kind = get_type_hints(Recipe).get(group)
    return kind is not None and get_origin(get_type_hints(kind).get(name.partition(".")[0])) is dict


def nearest(key: str) -> str:
    """The valid dotted name closest to a wrong one."""
    names = [f"{group}.{name}" for group, kind in get_type_hints(Recipe).items() for name in get_type_hints(kind)]
    by_tail = difflib.get_close_matches(key.rpartition(".")[2], [n.partition(".")[2] for n in names], n=1, cutoff=0.7)
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    if by_tail and (not close or close[0].partition(".")[2] != by_tail[0]):
        close = [n for n in names if n.partition(".")[2] == by_tail[0]]
    return close[0] if close else names[0]


def refuse_unknown(
    values: Iterable[str], valid: Iterable[str], where: str, prefix: str = "", near: Callable[[str], str] | None = None
) -> None:
    """Refuse a key that is not in `valid`, with the nearest that is; `near` finds it by the dotted name.

    Raises:
        RecipeError: for the first such key; `where` names the file, `prefix` the group in it.
    """
    names = list(valid)
    for key in values:
        if key not in names:
            dotted = f"{prefix}.{key}" if prefix else str(key)
            hint = near(dotted) if near else _nearest_of(str(key), names)
            raise RecipeError(
                f"{where}: unknown key {dotted!r}", expected=f"one of {', '.join(names)}", mend=f"did you mean {hint}?"
            )


def _nearest_of(key: str, names: list[str]) -> str:
    return (difflib.get_close_matches(key, names, n=1, cutoff=0.3) or names)[0]


def _build_group(
    kind: Any, group: str, values: Mapping[str, Any], where: str, near: Callable[[str], str] | None = nearest
) -> Any:
    hints = get_type_hints(kind)
    refuse_unknown(values, hints, where, prefix=group, near=near)
    return kind(**{name: _typed(value, hints[name], f"{group}.{name}", where) for name, value in values.items()})


def _typed(value: Any, hint: Any, key: str, where: str) -> Any:
    """`value` as the type `hint`, or a RecipeError. YAML reads 1e-3 as text, so text that is a number counts as one."""
    options = _options(hint)
    if value is None and type(None) in options:
        return None
    for option in options:
        if get_origin(option) is Literal and value in get_args(option):
            return value
        if get_origin(option) is dict and isinstance(value, Mapping):
            kind = get_args(option)[1]
            return {str(part): _typed(held, kind, f"{key}.{part}", where) for part, held in value.items()}
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return _build_group(option, key, value, where, near=None)
        if option is bool and isinstance(value, bool):
            return value
        if option is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if option is float and not isinstance(value, bool):
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            if math.isfinite(number):
                return number
        if option is str and isinstance(value, str | int | float) and not isinstance(value, bool):
            return os.path.expanduser(str(value)) if str(value).startswith("~") else str(value)
    raise RecipeError(f"{where}: {key} is {value!r}", expected=_say(options), mend=f"correct {key}")


def _say_kind(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return "{" + ", ".join(item.name for item in dataclasses.fields(kind)) + "}, or some of these"
    return f"{kind.__name__}, such as {{name: 1.0}}"


def _say(options: tuple[Any, ...]) -> str:
    words = []
    for option in options:
        if get_origin(option) is Literal:
            words.append("one of " + ", ".join(map(str, get_args(option))))
        elif get_origin(option) is dict:
            words.append("a mapping from names to " + _say_kind(get_args(option)[1]))
        elif dataclasses.is_dataclass(option):
            words.append(_say_kind(option))
        else:
            words.append("nothing (null)" if option is type(None) else f"a value of type {option.__name__}")
    return " or ".join(words)
