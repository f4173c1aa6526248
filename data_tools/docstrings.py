"""Question and answer pairs from the documentation strings of Python source files.

The first sentence of a documentation string asks; the signature and the remaining text answer:

    def clip(a, low, high):                      query     Limit the values in an array.
        '''Limit the values in an array.         positive  numpy.clip(a, low, high): Given an interval, values
                                                           outside of it become its edges. ...
        Given an interval, values outside ...'''

Sources are parsed with `ast` and never imported, so nothing found in them runs. The first sentence never stays in
the passage: a pair whose passage repeats it is dropped.
"""

import ast
import inspect
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

QUERY_WORDS = range(4, 41)
REST_WORDS = range(12, 201)
"""Remaining texts below are dropped, those above cut: an answer is a passage, not a chapter."""

_SECTION = re.compile(
    r"(args|arguments|parameters|params|returns?|yields?|raises|examples?|notes?|attributes|see also|usage|inputs?"
    r"|outputs?)\s*:{0,2}$|:(param|returns?|type|rtype|raises)\b|@param|>>> |\.\. ",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!\betc)(?<!\bvs)(?<!\bcf)[.!?](?=\s+[^a-z\s]|\s*$)")
_ROLE = re.compile(r":[a-z]+(?::[a-z]+)*:`[~!.]*([^`<]*?)(?:\s*<[^`]*>)?`")
_MARKUP = re.compile(r"\[`+|`+\]|`+|</?[a-z]{1,6}>")
_RULE = re.compile(r"([-=~^*#_+.])\1{3,}")


@dataclass(frozen=True)
class Pair:
    """One question and its answer; `group` is the module, whose other pairs are likely near misses."""

    id: str
    group: str
    query: str
    positive: str
    rest: str
    """The positive without its signature: what deduplication compares."""


@dataclass(frozen=True)
class Mined:
    """The pairs of one source file, and how many documented objects each filter dropped."""

    pairs: tuple[Pair, ...]
    dropped: Counter[str]


def mine_file(path: Path, package: str, module: str) -> Mined:
    """All pairs of one source file, in the order of the source. A file that does not parse counts as one drop."""
    dropped: Counter[str] = Counter()
    try:
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return Mined((), dropped)
        with warnings.catch_warnings():
            # Old sources hold invalid escapes; their SyntaxWarnings are not ours to report.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return Mined((), Counter({"file does not parse": 1}))
    pairs = []
    for name, signature, docstring in _documented(tree, module):
        query, rest = split_docstring(docstring)
        if reason := refusal(query, rest, signature):
            dropped[reason] += 1
        else:
            pairs.append(Pair(f"{package}/{name}", module, query, f"{signature}: {rest}", rest))
    return Mined(tuple(pairs), dropped)


def split_docstring(docstring: str) -> tuple[str, str]:
    """(first sentence, remaining text), both on one line without markup; the remainder is cut to its first words.

    The first sentence never reaches past its paragraph, nor into a section such as `Args:` or an example.
    """
    lines = inspect.cleandoc(docstring).splitlines()
    head_lines = list(itertools.takewhile(lambda line: line and not _SECTION.match(line), map(str.strip, lines)))
    head = plain(" ".join(head_lines))
    stop = _SENTENCE_END.search(head)
    query = head[: stop.end()] if stop else head
    rest = f"{head[len(query) :]} {plain(' '.join(lines[len(head_lines) :]))}".split()
    return query, " ".join(rest[: REST_WORDS.stop - 1])


def plain(text: str) -> str:
    """Without the markup of reStructuredText and Markdown, white space collapsed."""
    text = _ROLE.sub(r"\1", text)
    text = _MARKUP.sub("", text)
    return " ".join(_RULE.sub(" ", text).split())


def refusal(query: str, rest: str, signature: str) -> str | None:
    """Why this is no pair, in the words the manifest counts; None when it is one."""
    if not rest:
        return "nothing beyond the first sentence"
    if len(query.split()) not in QUERY_WORDS:
        return "question too short or too long"
    if not query.isascii() or _letter_share(query) < 0.8 or re.match(r"[\w.]+\(", query):
        return "question is no English prose"
    if len(rest.split()) not in REST_WORDS:
        return "answer too short"
    if sum(map(str.isascii, rest)) < 0.95 * len(rest) or _letter_share(rest) < 0.6:
        return "answer is no English prose"
    if "deprecated" in f"{query} {rest[:200]}".lower():
        return "deprecated"
    if query.rstrip(".!?").lower() in f"{signature}: {rest}".lower():
        return "answer repeats the question"
    return None


def _letter_share(text: str) -> float:
    """Letters among the characters that are not white space."""
    characters = [c for c in text if not c.isspace()]
    return sum(map(str.isalpha, characters)) / max(1, len(characters))


def _documented(tree: ast.Module, module: str) -> Iterator[tuple[str, str, str]]:
    """(dotted name, signature, documentation string) of every function, class and method, depth first."""
    stack: list[tuple[str, ast.stmt]] = [(module, node) for node in reversed(tree.body)]
    while stack:
        prefix, node = stack.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = f"{prefix}.{node.name}"
        if docstring := ast.get_docstring(node, clean=False):
            yield name, f"{name}({', '.join(_parameters(node))})", docstring
        if isinstance(node, ast.ClassDef):
            stack.extend((name, child) for child in reversed(node.body))


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[str]:
    """Parameter names as a caller sees them, without self; those of a class are its constructor's."""
    if isinstance(node, ast.ClassDef):
        constructors = [c for c in node.body if isinstance(c, ast.FunctionDef) and c.name == "__init__"]
        return _parameters(constructors[0]) if constructors else []
    given = node.args
    names = [a.arg for a in given.posonlyargs + given.args]
    names += [f"*{given.vararg.arg}"] if given.vararg else []
    names += [a.arg for a in given.kwonlyargs]
    names += [f"**{given.kwarg.arg}"] if given.kwarg else []
    return [name for name in names if name not in ("self", "cls")]
