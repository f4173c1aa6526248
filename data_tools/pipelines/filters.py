"""`largede-data filter`: pairs that are too short or long, in another language, badly voted, or boilerplate."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from data_tools.pipelines.job import Plan
from data_tools.pipelines.languages import demand_identifier, identifier
from data_tools.pipelines.steps import Drop, Judge
from data_tools.pipelines.words import words
from largede.errors import DataError
from largede.streams.pair import Pair
from largede.text import passage_text


@dataclass(frozen=True)
class FilterSettings:
    """Limits in words (title included in the passage), bounds as shares of characters or lines, and what is kept.

    No language: any; no score: any. A pair without a score is kept whatever `min_score` says.
    """

    min_query_words: int = 2
    max_query_words: int = 128
    min_passage_words: int = 5
    max_passage_words: int = 10_000
    languages: tuple[str, ...] = ()
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


def filter_plan(settings: FilterSettings, skip_bad: int = 0) -> Plan:
    if settings.languages:
        demand_identifier()
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
        judges.append(Language(settings.languages))
    return judges


class Length(Judge):
    name = "length"

    def __init__(self, settings: FilterSettings) -> None:
        super().__init__()
        self.settings = settings

    def judge(self, pair: Pair, row: int) -> Drop | None:
        for side, text in (("query", pair.query), ("passage", passage_text(pair.title, pair.positive))):
            count = len(words(text))
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
    """Query and passage together: a question alone is often too short to tell."""

    name = "language"

    def __init__(self, languages: tuple[str, ...]) -> None:
        super().__init__()
        self.languages = languages
        self._identify: Callable[[str], str] | None = None

    def prepare(self, rank: int) -> None:
        self._identify = identifier()

    def __getstate__(self) -> dict[str, object]:
        # The model stays in the process that loaded it.
        return self.__dict__ | {"_identify": None}

    def judge(self, pair: Pair, row: int) -> Drop | None:
        assert self._identify is not None, "prepare comes first"
        language = self._identify(f"{pair.query} {pair.positive}")
        return None if language in self.languages else Drop(f"language {language}")


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
        query = words(pair.query)
        if query in (words(pair.positive), words(passage_text(pair.title, pair.positive))):
            return Drop("query is the passage")
        return None


_GONE = re.compile(
    r"\s*[\[(]?\s*(deleted|removed|deleted by user|removed by (moderator|reddit)|unavailable)\s*[\])]?\s*[.!]?\s*", re.I
)
_BOT = re.compile(
    r"\bI am a bot\b|\bI'?m a bot\b|\bthis action was performed automatically\b|\bbeep boop\b|\bRemindMe!"
    r"|\bcontact the moderators of this (subreddit|community)\b"
    r"|\byour (post|submission|comment) has been (automatically )?removed\b",
    re.I,
)
_LINK = re.compile(r"(?:https?://|www\.)\S+", re.I)


def fault_of(text: str, settings: FilterSettings) -> str | None:
    """What makes a text boilerplate, or None."""
    if _GONE.fullmatch(text):
        return "deleted or removed"
    if _BOT.search(text):
        return "a bot's"
    rest = _LINK.sub("", text)
    if _visible(rest) < (1 - settings.max_links) * _visible(text):
        return "mostly links"
    letters = sum(map(str.isalpha, rest))
    if not letters:
        return "no letters"
    if letters < settings.min_letters * _visible(rest):
        return "mostly digits or symbols"
    if repeated_lines(text) > settings.max_repeated_lines:
        return "mostly repeated lines"
    return None


def _visible(text: str) -> int:
    """Characters that are no white space."""
    return sum(map(len, text.split()))


def repeated_lines(text: str) -> float:
    """The share of the lines (white space and empty ones aside) that occurred before in the text."""
    counts = Counter(filter(None, map(str.strip, text.splitlines())))
    total = counts.total()
    return (total - len(counts)) / total if total else 0.0
