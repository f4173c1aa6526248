"""Words as all pipelines count and compare them, and 64-bit hashes of runs of words.

A word is a run of letters and digits, lower case, Unicode compatibility forms folded together; Chinese characters and
Japanese kana are a word each. Nothing is downloaded, and every language gets the same rule.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import regex
import xxhash

Hashes = npt.NDArray[np.uint64]

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_SINGLE = r"\p{Han}\p{Hiragana}\p{Katakana}"
# Combining marks belong to the letter before them: vowel signs of Indian scripts would cut words otherwise.
_WORD = regex.compile(rf"[{_SINGLE}]\p{{M}}*|[\p{{L}}\p{{N}}--{_SINGLE}][\p{{L}}\p{{N}}\p{{M}}--{_SINGLE}]*", regex.V1)


# Latin, Greek, Cyrillic and signs: no marks, no character that is a word of its own, none that Unicode added lately
# (`re` and `regex` know different versions).
_SIMPLE_TEXT = re.compile(r"[\x00-\u02ff\u0370-\u0482\u048a-\u052f\u2000-\u206f\u20a0-\u20cf\u2100-\u2bff]*")
_SIMPLE_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    plain = folded(text)
    if _SIMPLE_TEXT.fullmatch(plain):
        return _SIMPLE_WORD.findall(plain)
    return words_plain(text)


def words_plain(text: str) -> list[str]:
    """The rule for any script; `words` takes faster ways to the same answer where the characters allow it."""
    found: list[str] = _WORD.findall(folded(text))
    return found


def folded(text: str) -> str:
    """Unicode compatibility forms and upper and lower case folded together; punctuation and white space stay."""
    return unicodedata.normalize("NFKC", text).casefold()


def run_hashes(found: list[str], length: int) -> Hashes:
    """A hash of each run of `length` words, in order; of all the words together where there are fewer.

    No word at all gives no hash. A run hashes alike wherever it stands, on every machine.
    """
    if not found:
        return np.empty(0, np.uint64)
    return runs_of_lengths(found, [min(length, len(found))])[0]


def runs_of_lengths(found: list[str], lengths: Sequence[int]) -> tuple[Hashes, list[int]]:
    """The hashes of the runs of several lengths, at little more than the price of the longest, and the lengths taken.

    All runs of the first of these lengths come first, in order, then those of the next. Lengths beyond that of the text
    are left out.
    """
    single = np.fromiter(map(xxhash.xxh3_64_intdigest, map(str.encode, found)), np.uint64, len(found))
    most = min(max(lengths, default=0), len(found))
    sums, hashes = np.zeros(len(found), np.uint64), [np.empty(0, np.uint64)]
    taken = []
    for length, factor in enumerate(_factors(most), start=1):
        sums = sums[: len(found) - length + 1] + single[length - 1 :] * factor
        if length in lengths:
            hashes.append(sums + np.uint64(length))
            taken.append(length)
    return mixed(np.concatenate(hashes)), taken


def run_at(number: int, words_in_all: int, lengths: Sequence[int]) -> tuple[int, int]:
    """Where the run of that number in the answer of `runs_of_lengths` begins, and its length, in words."""
    for length in lengths:
        runs = words_in_all - length + 1
        if number < runs:
            return number, length
        number -= runs
    raise IndexError(number)


def plain(text: str) -> str:
    """The text folded, with any white space as one space: equal for exact duplicates."""
    return " ".join(folded(text).split())


def text_hash(plain_text: str) -> int:
    return xxhash.xxh3_64_intdigest(plain_text.encode(errors="surrogatepass"))


def mixed(values: Hashes) -> Hashes:
    """Every bit of each value spread over all 64 (the finaliser of SplitMix64); a bijection."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=64)
def _factors(length: int) -> Hashes:
    """An odd factor for each place in a run, so that the order of the words counts."""
    return mixed(np.arange(1, length + 1, dtype=np.uint64)) | np.uint64(1)
