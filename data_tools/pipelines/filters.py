"""`largede-data filter`: pairs that are too short or long, in another language, badly voted, or boilerplate."""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from math import isfinite
from pathlib import Path

from data_tools.pipelines.job import Plan
from data_tools.pipelines.languages import Identify, demand_languages, identifier
from data_tools.pipelines.ranges import demand
from data_tools.pipelines.steps import Drop, Judge
from data_tools.pipelines.words import words
from largede.errors import DataError
from largede.streams.pair import Pair
from largede.text import passage_text


@dataclass(frozen=True)
class FilterSettings:
    """Limits in words (title included in the passage), bounds as shares of characters or lines, and what is kept.

    No language: any; no score: any. A pair without a score is kept whatever `min_score` says. A pair goes for its
    language when query and passage together are likeliest another one, with a probability of `language_confidence` at
    least, and the allowed languages together stay below `max_allowed_share` there and in the passage alone as well.
    """

    min_query_words: int = 2
    max_query_words: int = 128
    min_passage_words: int = 5
    max_passage_words: int = 10_000
    languages: tuple[str, ...] = ()
    language_confidence: float = 0.4
    max_allowed_share: float = 0.2
    min_score: float | None = None
    min_letters: float = 0.5
    max_links: float = 0.5
    max_repeated_lines: float = 0.5
    boilerplate: bool = True

    def __post_init__(self) -> None:
        for side in ("query", "passage"):
            least, most = getattr(self, f"min_{side}_words"), getattr(self, f"max_{side}_words")
            if not 0 <= least <= most:
                raise DataError(
                    f"--min-{side}-words {least} and --max-{side}-words {most}",
                    expected="0 or more, and the smaller first",
                    mend="change one of them",
                )
        shares = ("language_confidence", "max_allowed_share", "min_letters", "max_links", "max_repeated_lines")
        demand(self, shares, lambda share: 0 <= share <= 1, "a share, from 0 to 1")
        demand(self, ["min_score"], lambda score: score is None or isfinite(score), "a finite number")


def filter_plan(settings: FilterSettings, skip_bad: int = 0) -> Plan:
    if settings.languages:
        demand_languages(settings.languages)
    return Plan("filter", asdict(settings) | {"languages": list(settings.languages)}, partial(_judges, settings),
                skip_bad=skip_bad)  # fmt: skip


def _judges(settings: FilterSettings, work: Path) -> list[Judge]:
    """The cheap ones first; each pair is counted under the first that drops it."""
    judges: list[Judge] = [Length(settings)]
    if settings.min_score is not None:
        judges.append(Score(settings.min_score))
    if settings.boilerplate:
        judges.append(Boilerplate(settings))
    if settings.languages:
        judges.append(Language(settings))
    return judges


@lru_cache(maxsize=8)
def _words_of(text: str) -> tuple[str, ...]:
    """The words of a text that several judges of one pair ask for."""
    return tuple(words(text))


class Length(Judge):
    name = "length"

    def __init__(self, settings: FilterSettings) -> None:
        super().__init__()
        self.settings = settings

    def judge(self, pair: Pair, row: int) -> Drop | None:
        for side, text in (("query", pair.query), ("passage", passage_text(pair.title, pair.positive))):
            count = len(_words_of(text))
            if count < getattr(self.settings, f"min_{side}_words"):
                return Drop(f"{side} too short", {"words": count})
            if count > getattr(self.settings, f"max_{side}_words"):
                return Drop(f"{side} too long", {"words": count})
        return None


class Score(Judge):
    name = "score"

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def judge(self, pair: Pair, row: int) -> Drop | None:
        if pair.score is None or pair.score >= self.least:
            return None
        return Drop("score too low", {"score": pair.score})


class Language(Judge):
    """Query and passage together first: a question alone is often too short to tell.

    One French name in an English question about beer can tip the two together, so the passage alone has to agree.
    """

    name = "language"

    def __init__(self, settings: FilterSettings) -> None:
        super().__init__()
        self.settings = settings
        self._identify: Identify | None = None

    def prepare(self, rank: int) -> None:
        self._identify = identifier()

    def __getstate__(self) -> dict[str, object]:
        # The model stays in the process that loaded it.
        return self.__dict__ | {"_identify": None}

    def judge(self, pair: Pair, row: int) -> Drop | None:
        assert self._identify is not None, "prepare comes first"
        both = self._identify(f"{pair.query} {pair.positive}")
        language, probability = both[0]
        if language in self.settings.languages or probability < self.settings.language_confidence:
            return None
        if self._may_be_allowed(both) or self._may_be_allowed(self._identify(pair.positive)):
            return None
        return Drop(f"language {language}", {"probability": round(probability, 3)})

    def _may_be_allowed(self, found: list[tuple[str, float]]) -> bool:
        allowed = sum(probability for language, probability in found if language in self.settings.languages)
        return allowed >= self.settings.max_allowed_share


class Boilerplate(Judge):
    name = "boilerplate"

    def __init__(self, settings: FilterSettings) -> None:
        super().__init__()
        self.settings = settings

    def judge(self, pair: Pair, row: int) -> Drop | None:
        for side, text in (("query", pair.query), ("passage", pair.positive)):
            fault = fault_of(text, self.settings)
            if fault is not None:
                return Drop(f"{side}: {fault}")
        query = _words_of(pair.query)
        if query in (_words_of(pair.positive), _words_of(passage_text(pair.title, pair.positive))):
            return Drop("query is the passage")
        return None


_GONE = re.compile(
    r"\s*[\[(]?\s*(deleted|removed|deleted by user|removed by (moderator|reddit)|unavailable)\s*[\])]?\s*[.!]?\s*", re.I
)
# What moderating programs sign with; people do not write it by chance.
_SIGNATURES = (
    "this action was performed automatically",
    "please contact the moderators of this subreddit if you have",
    "please contact the moderators of this community if you have",
)
# Only as a sentence, or the beginning of one, of its own: "the captcha thinks I am a bot", "I'm a bot developer" and
# "my post has been removed, why?" are people's.
_SENTENCE = r"(?:^|(?<=[.!?,:;()\n*^|–—-]))[\s*^_#>]*"
_SAYS_BOT = re.compile(
    _SENTENCE + r"(?:(?:i am|i[’']m) a bot\b(?=\s*(?:$|[.,!;:()*^|–—-]|and\b|that\b|created\b))|beep[ ,.]+boop\b)"
)
_SAYS_REMOVED = re.compile(
    _SENTENCE + r"(?:unfortunately,? |sorry,? )?(?:your|this) (?:post|submission|comment|thread) (?:has been|was)"
    r" (?:automatically |auto-?)?removed\b"
)
_REMINDER = re.compile(r"\W*remindme!")
# Characters at the beginning or end of a text where such a sentence speaks for all of it.
_MARGIN = 160
_LETTERS = re.compile(r"[^\W\d_]+")
_LINK = re.compile(r"(?:https?://|www\.)\S+", re.I)


def fault_of(text: str, settings: FilterSettings) -> str | None:
    """What makes a text boilerplate, or None."""
    if _GONE.fullmatch(text):
        return "deleted or removed"
    lower = text.lower()
    if _is_of_bot(lower):
        return "a bot's"
    if "://" in lower or "www." in lower:
        rest = _LINK.sub("", lower)
        if _visible(rest) < (1 - settings.max_links) * _visible(lower):
            return "mostly links"
        lower = rest
    letters = sum(map(len, _LETTERS.findall(lower)))
    if not letters:
        return "no letters"
    if letters < settings.min_letters * _visible(lower):
        return "mostly digits or symbols"
    if repeated_lines(text) > settings.max_repeated_lines:
        return "mostly repeated lines"
    return None


def _is_of_bot(lower: str) -> bool:
    """Whether a program wrote the text (given in lower case), by its signature or by how it begins or ends."""
    if any(phrase in lower for phrase in _SIGNATURES) or _REMINDER.match(lower):
        return True
    # Looking for the words first is much faster than the patterns.
    if "removed" in lower and _SAYS_REMOVED.search(lower, 0, _MARGIN):
        return True
    if "a bot" not in lower and "beep" not in lower:
        return False
    end = max(0, len(lower) - _MARGIN)
    return bool(_SAYS_BOT.search(lower, 0, _MARGIN) or _SAYS_BOT.search(lower, end))


def _visible(text: str) -> int:
    """Characters that are no white space."""
    return sum(map(len, text.split()))


def repeated_lines(text: str) -> float:
    """The share of the lines (white space and empty ones aside) that occurred before in the text."""
    counts = Counter(filter(None, map(str.strip, text.splitlines())))
    total = counts.total()
    return (total - len(counts)) / total if total else 0.0
