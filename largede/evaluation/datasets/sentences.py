"""Where sentences begin and end, as offsets into the text: rules for English, made for encyclopedic and news prose.

The authors of ReQA publish a rule-based breaker that they tuned on SQuAD (google/retrieval-qa-eval). This one has
rules of the same kinds, its own lists, and no exceptions for single articles. A boundary is a terminator, whatever
closes behind it, white space, and something that can begin a sentence; then abbreviations, initials and numbered things
take boundaries back. Offsets stay those of the text as it was given.
"""

import re
from collections.abc import Iterator

_MARKS = re.compile(r"\[(?:TLE|DOC|PAR|SEP)\]|\n\s*\n")
"""Always a boundary and part of no sentence: MRQA's marks of titles, documents and paragraphs, and empty lines."""

_CLOSERS = "\"'”’»›)\\]"
_OPENERS = "\"'“‘„«‹(\\[¿¡"
_BOUNDARY = re.compile(
    rf"""
    (?P<end> [.!?…]+ [{_CLOSERS}]* (?:\[[^\[\]\n]{{1,40}}\])*   # a terminator, closers, footnotes like [3] or [note 1]
           | [。！？]+ [」』”’)）]* )                              # these need no space behind them
    (?P<space> \s* )
    """,
    re.VERBOSE,
)
_BEGINS = re.compile(rf"[{_OPENERS}]*(?:\.\.\. ?|… ?)?[{_OPENERS}]*(\w)")
_LAST_WORD = re.compile(r"(?:[^\W_]|[.&'’])+$")
_NEXT_WORD = re.compile(rf"[{_OPENERS}]*(\w+)(\.?)")
_LONGEST_WORD = 24
"""Letters that are looked at before a full stop: longer ones abbreviate nothing."""


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# A full stop behind these never ends a sentence: something they belong to follows.
_NEVER = _words(
    "mr mrs ms mx dr prof rev fr sra msgr mgr hon pres gov sen rep gen col maj lt cmdr adm capt sgt cpl pvt "
    "st ste mt ft a.k.a e.g i.e eg ie viz cf vs v al incl esp resp approx ca c.f"
)
# Not before a number, which they count: "No. 5", "pp. 12", "c. 1850", "Jan. 3", "Fig. IV".
_BEFORE_NUMBER = _words(
    "no nos nr vol vols ch chap p pp pg art sec sect cl fig figs eq op opp ed eds b d r c ca fl est "
    "jan feb mar apr jun jul aug sep sept oct nov dec rs h.r circa"
)
# These end a sentence only before a word that begins sentences and hardly anything else.
_SOMETIMES = _words(
    "co inc ltd corp bros jr sr ph.d m.d b.a m.a b.sc m.sc d.c u.s u.k u.n u.s.a e.u a.m p.m a.d b.c dept univ "
    "ave blvd rd"
)
_STARTERS = _words(
    "the this that these those it its he she they his her their there here we you in on at by for from with when while "
    "where as after before during since until although though however but and or if because despite according "
    "meanwhile moreover furthermore nevertheless instead both some many most several another other each such a an one "
    "no not nor what who why how"
)
_INITIALS = re.compile(r"[A-Z](?:\.[A-Z])*")
_ROMAN_OR_DIGIT = re.compile(r"[0-9IVXLC]+\b")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each sentence, in order, without white space around; none of them is empty."""
    return [span for first, last in _blocks(text) for span in _sentences(text, first, last)]


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    first = 0
    for mark in _MARKS.finditer(text):
        yield first, mark.start()
        first = mark.end()
    yield first, len(text)


def _sentences(text: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    begin = first
    for found in _BOUNDARY.finditer(text, first, last):
        if found.end() < last and _is_boundary(text, begin, found, last):
            yield from _trimmed(text, begin, found.end("end"))
            begin = found.end()
    yield from _trimmed(text, begin, last)


def _trimmed(text: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    inner = text[first:last]
    start = first + len(inner) - len(inner.lstrip())
    end = first + len(inner.rstrip())
    if start < end:
        yield start, end


def _is_boundary(text: str, begin: int, found: re.Match[str], last: int) -> bool:
    if found["end"][0] in "。！？":
        return True
    begins = _BEGINS.match(text, found.end(), last)
    # A letter without case (Han, Arabic) may begin a sentence, a small one may not.
    if not found["space"] or begins is None or begins[1].islower():
        return False
    if found["end"][0] != "." or found["end"].startswith(".."):
        return True
    return not _belongs(text, begin, found, last)


def _belongs(text: str, begin: int, found: re.Match[str], last: int) -> bool:
    """Whether the full stop is of an abbreviation, an initial or a number, and the sentence goes on."""
    before = _LAST_WORD.search(text, max(begin, found.start("end") - _LONGEST_WORD), found.start("end"))
    word = before[0].strip(".'’-") if before else ""
    following = _NEXT_WORD.match(text, found.end(), last)
    next_word = following[1] if following else ""
    is_initial = following is not None and len(next_word) == 1 and following[2] == "."
    if len(found["end"]) > 1 or not word:  # something closes behind it: of a quotation, not of an abbreviation
        return False
    initials = _INITIALS.fullmatch(word) is not None
    if word.lower() in _NEVER and not initials:
        return True
    if word.lower() in _BEFORE_NUMBER and _ROMAN_OR_DIGIT.match(next_word):
        return True
    if word.isdigit() and before is not None and not text[begin : before.start()].strip():
        return True  # "1. First", a number of a list
    if word.lower() in _SOMETIMES or (initials and word != "I"):
        return is_initial or next_word.lower() not in _STARTERS
    return False
