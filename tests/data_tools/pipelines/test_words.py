import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from data_tools.pipelines.words import _factors, run_at, run_hashes, runs_of_lengths, words, words_plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 3.5 km, isn't it?", ["it", "s", "3", "5", "km", "isn", "t", "it"]),
        ("snake_case and ＦＵＬＬ width", ["snake", "case", "and", "full", "width"]),
        ("Straße – naïve café", ["strasse", "naïve", "café"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("東京タワー is tall", ["東", "京", "タ", "ワ", "ー", "is", "tall"]),
        ("¿?…—", []),
    ],
)
def test_words_are_runs_of_letters_and_digits_in_any_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_the_fast_ways_find_the_words_of_the_plain_one_for_every_character() -> None:
    # Whatever lies beyond has no fast way.
    for character in map(chr, range(0x3000)):
        text = f"a{character}B {character}7"
        assert words(text) == words_plain(text), hex(ord(character))


@given(st.text(st.sampled_from("aB7_ -'“”éßÅñГреκό²ªﬁ\u0301\u05b8न्त東キ\n."), max_size=40))
def test_the_fast_ways_find_the_words_of_the_plain_one_in_mixed_texts(text: str) -> None:
    assert words(text) == words_plain(text)


@given(st.lists(st.sampled_from(["a", "b", "tower", "7", "né"]), max_size=12), st.integers(1, 6))
def test_hashes_of_runs_equal_the_plain_computation(found: list[str], length: int) -> None:
    assert run_hashes(found, length).tolist() == run_hashes_plain(found, length)


def run_hashes_plain(found: list[str], length: int) -> list[int]:
    """What `run_hashes` computes, one run at a time, in whole numbers."""
    length = min(length, len(found))
    hashes = []
    for first in range(len(found) - length + 1 if found else 0):
        total = length
        for place, word in enumerate(found[first : first + length]):
            total += xxhash.xxh3_64_intdigest(word.encode()) * int(_factors(length)[place])
        hashes.append(mixed_plain(total % 2**64))
    return hashes


def mixed_plain(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


def test_several_lengths_at_once_are_each_as_if_alone() -> None:
    found = [f"w{number % 11}" for number in range(30)]
    for count in (0, 3, 9, 30):
        hashes, lengths = runs_of_lengths(found[:count], [13, 9, 4])
        assert lengths == [length for length in (4, 9, 13) if length <= count]
        assert hashes.tolist() == sum((run_hashes_plain(found[:count], length) for length in lengths), [])
        for number, value in enumerate(hashes.tolist()):
            first, length = run_at(number, count, lengths)
            assert [value] == run_hashes_plain(found[first : first + length], length)


def test_a_run_hashes_alike_wherever_it_stands_and_its_order_counts() -> None:
    first, second = run_hashes(["x", "a", "b", "c"], 3), run_hashes(["a", "b", "c", "y"], 3)
    assert first[1] == second[0]
    assert run_hashes(["a", "b"], 2) != run_hashes(["b", "a"], 2)
    # A whole short text is not the beginning of a longer one.
    assert run_hashes(["a", "b"], 3)[0] not in run_hashes(["a", "b", "c"], 3)
    assert len(np.unique(run_hashes([str(n) for n in range(1000)], 2))) == 999
