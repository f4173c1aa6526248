"""Whether a text repeats what was asked, word for word."""

import re
from collections.abc import Iterator

RUN_WORDS = 8
"""Fewer words in a row may be alike by chance, or be a phrase of the subject."""

_WORD = re.compile(r"\w+")


class Asked:
    """What was asked. Called with a text: whether RUN_WORDS words in a row of it are there too."""

    def __init__(self, text: str) -> None:
        self._runs = frozenset(_runs(text))

    def __call__(self, text: str) -> bool:
        return not self._runs.isdisjoint(_runs(text))


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return zip(*(words[start:] for start in range(RUN_WORDS)), strict=False)
