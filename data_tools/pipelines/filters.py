"""`largede-data filter`: pairs that are too short or long, in another language, badly voted, or boilerplate."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
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

    No language: any; no score: any. A pair without a score is kept whatever `min_score` says, and so is one whose
    likeliest language is another but with a probability below `language_confidence`.
    """

    min_query_words: int = 2
    max_query_words: int = 128
    min_passage_words: int = 5
    max_passage_words: int = 10_000
    languages: tuple[str, ...] = ()
    language_confidence: float = 0.4
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
        judges.append(Language(settings.languages, settings.language_confidence))
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
    """Query and passage together: a question alone is often too short to tell."""

    name = "language"

    def __init__(self, languages: tuple[str, ...], confidence: float) -> None:
        super().__init__()
        self.languages = languages
        self.confidence = confidence
        self._identify: Callable[[str], tuple[str, float]] | None = None

    def prepare(self, rank: int) -> None:
        self._identify = identifier()

    def __getstate__(self) -> dict[str, object]:
        # The model stays in the process that loaded it.
        return self.__dict__ | {"_identify": None}

    def judge(self, pair: Pair, row: int) -> Drop | None:
        assert self._identify is not None, "prepare comes first"
        language, probability = self._identify(f"{pair.query} {pair.positive}")
        if language in self.languages or probability < self.confidence:
            return None
        return Drop(f"language {language}", {"probability": round(probability, 3)})


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
_BOT = (
    "i am a bot",
    "i'm a bot",
    "this action was performed automatically",
    "beep boop",
    "remindme!",
    "contact the moderators of this subreddit",
    "contact the moderators of this community",
    "post has been removed",
    "post has been automatically removed",
    "submission has been removed",
    "submission has been automatically removed",
    "comment has been removed",
    "comment has been automatically removed",
)
_LETTERS = re.compile(r"[^\W\d_]+")
_LINK = re.compile(r"(?:https?://|www\.)\S+", re.I)


def fault_of(text: str, settings: FilterSettings) -> str | None:
    """What makes a text boilerplate, or None."""
    if _GONE.fullmatch(text):
        return "deleted or removed"
    lower = text.lower()
    if any(phrase in lower for phrase in _BOT):
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


def _visible(text: str) -> int:
    """Characters that are no white space."""
    return sum(map(len, text.split()))


def repeated_lines(text: str) -> float:
    """The share of the lines (white space and empty ones aside) that occurred before in the text."""
    counts = Counter(filter(None, map(str.strip, text.splitlines())))
    total = counts.total()
    return (total - len(counts)) / total if total else 0.0
