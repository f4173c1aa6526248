"""Secrets out of what is kept of a run: its recipe, command, environment, errors and uncommitted changes."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from largede.config.recipe import Recipe

HIDDEN = "[hidden]"
HIDDEN_COMMAND = "pipe: a command"

_SECRET_NAME = (
    r"[\w.-]*(?:password|passwd|secret|token(?![a-z])|api[_-]?key|access[_-]?key|credential|authorization)[\w.-]*"
)
_PATTERNS = (
    # user:password@ in an address
    (re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)"), HIDDEN),
    # -u user:password, -H 'Name: value' of curl and its like
    (re.compile(r"((?:^|\s)(?:-u|--user|--proxy-user)(?:\s*|=)['\"]?)[^\s'\"=:]+:[^\s'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"((?:-H|--header)(?:\s*|=)(['\"])[\w-]+:\s*)(?:(?!\2).)+\2"), rf"\1{HIDDEN}\2"),
    # keys that say what they are
    (re.compile(r"\b(?:hf_|ghp_|gho_|github_pat_|glpat-|xox[abpr]-|sk-)[\w-]{16,}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"(?i)(\bbearer\s+|\bbasic\s+)[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    # --name value
    (re.compile(rf"(?i)((?:^|\s)--{_SECRET_NAME}(?:=|\s+))(?!-)(?:'[^']*'|\"[^\"]*\"|[^\s'\"]+)"), rf"\1{HIDDEN}"),
    # name = "value", name: value, of eight characters or more that look like no word of code
    (re.compile(rf"(?i)(\b{_SECRET_NAME}['\"]?\]?\s*[=:,]\s*)(['\"])[^'\"\n]{{4,}}\2"), rf"\1\2{HIDDEN}\2"),
    (re.compile(rf"(?i)(\b{_SECRET_NAME}(?:=|:\s*|\s+))(?=[^\s'\"]*\d)[^\s'\"()\[\]]{{8,}}"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)([?&](?:sig|signature|token|key|x-amz-[\w-]+)=)[^&\s'\"]+"), rf"\1{HIDDEN}"),
)
_COMMAND = re.compile(r"pipe:(?! a command).*", re.DOTALL)
_ADDRESS = re.compile(
    r"(?P<scheme>\b[A-Za-z][\w+.-]*://)(?P<user>[^/?#\s'\"]*@)?(?P<rest>[^?#\s'\"]*)(?P<query>[?#][^\s'\"]*)?"
)


def hide_secrets(text: str) -> str:
    """The text with whatever looks like a password, a key or a token replaced."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def hide_in_error(text: str) -> str:
    """An error's text without secrets: what follows a `pipe:` goes, for no one can tell what in a command is one."""
    return hide_secrets(_without_places(text))


def hide_in_message(text: str) -> str:
    """What is printed of an error: addresses lose their users, passwords and queries, all else stays to be mended."""
    return _ADDRESS.sub(_without_secrets, text)


def hide_in_command_line(words: Sequence[str]) -> str:
    """A command line as a shell takes it, without secrets."""
    return hide_secrets(shlex.join(map(_without_places, words)))


def _without_places(text: str) -> str:
    return _ADDRESS.sub(_without_secrets, _COMMAND.sub(HIDDEN_COMMAND, text))


def is_secret_name(name: str) -> bool:
    return re.fullmatch(f"(?i){_SECRET_NAME}", name) is not None


def shareable(recipe: Recipe) -> Recipe:
    """The recipe as it is kept with a run and shown: its places hold no secret, all else is the same."""
    data = recipe.data
    sources = {name: replace(source, shards=without_secrets(source.shards)) for name, source in data.sources.items()}
    data = replace(data, shards=without_secrets(data.shards), sources=sources)
    return replace(recipe, data=data)


def without_secrets(place: str) -> str:
    """A place of data without commands, users, passwords and queries; where it lost one, `has_lost_secrets` says so."""
    if place.startswith("pipe:"):
        return HIDDEN_COMMAND
    return _ADDRESS.sub(_without_secrets, place)


def _without_secrets(address: re.Match[str]) -> str:
    user = f"{HIDDEN}@" if address["user"] else ""
    query = f"?{HIDDEN}" if address["query"] else ""
    return f"{address['scheme']}{user}{address['rest']}{query}"


def has_lost_secrets(place: str) -> bool:
    return place == HIDDEN_COMMAND or ("://" in place and HIDDEN in place)
