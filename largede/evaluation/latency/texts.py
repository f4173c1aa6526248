"""Questions of a given number of tokens, made for whatever tokenizer is to read them."""

from typing import Any

from largede.errors import ModelError

_QUESTIONS = """
how long does it take for bread dough to rise in a cold kitchen
what is the difference between a city and a town in english law
which birds stay in the north of europe during the winter months
can a landlord keep the deposit when the tenant leaves the flat early
why does the moon look larger when it is close to the horizon
what were the main causes of the economic crisis of the nineteen thirties
how do I remove a stripped screw from an old wooden door without damage
is it safe to take vitamin d together with medicine for high blood pressure
who designed the bridge over the river near the central station
what happens to the price of a bond when interest rates go up
how many moons does the planet jupiter have and who discovered them
what should a beginner know before buying a second hand sailing boat
"""
_FILLERS = ("a", "of", "is", "the", "in", "to", "it", "on", "x", "1", ".", "?")


def texts_of(tokenizer: Any, prefix: str, tokens: int, count: int) -> list[str]:
    """So many different texts, each of exactly `tokens` tokens with the prefix and the tokenizer's special ones.

    Raises:
        ModelError: the tokenizer alone makes more, or has no word that fills the last place.
    """
    words = _QUESTIONS.split()
    return [_text_of(tokenizer, prefix, tokens, words[i % len(words) :] + words, i) for i in range(count)]


def _text_of(tokenizer: Any, prefix: str, tokens: int, words: list[str], number: int) -> str:
    def count(chosen: list[str]) -> int:
        return len(tokenizer(prefix + " ".join(chosen), verbose=False)["input_ids"])

    if count([]) >= tokens:
        raise ModelError(
            f"queries of {tokens} tokens",
            expected=f"more than the {count([])} that prefix and tokenizer add themselves",
            mend="give a larger --length",
        )
    # The number makes a text unlike all others that begin at the same word.
    begun = [str(number)] if count([str(number)]) <= tokens else []
    endless = begun + words * (1 + tokens // len(words))
    low, high = len(begun), len(endless)
    while low < high:  # the most words that fit; more words never make fewer tokens
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(endless[:middle]) <= tokens else (low, middle - 1)
    chosen = endless[:low]
    while (so_far := count(chosen)) < tokens:
        longer = [[*chosen, filler] for filler in _FILLERS]
        fitting = [one for one in longer if so_far < count(one) <= tokens]
        if not fitting:
            raise ModelError(
                f"a text of {tokens} tokens",
                expected="a tokenizer that reads short words",
                mend="give another --length",
            )
        chosen = fitting[0]
    return " ".join(chosen)
