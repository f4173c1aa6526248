import time

import pytest

from data_tools.readers.markdown import markdown_to_text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("**bold**, *slanted*, ***both***, ~~gone~~", "bold, slanted, both, gone"),
        ("see [the **manual**](http://x.org/a_(b)) now", "see the manual now"),
        ("&gt; what was asked\n\nthe answer", "the answer"),
        ("&gt;!spoiler!&lt; and 3 &gt; 2", "spoiler and 3 > 2"),
        ("# Head\n\n* one\n- two\n1. three\n\n---\nend", "Head\none\ntwo\n1. three\nend"),
        ("use `a*b*c` or\n\n    x = *p * *q\n\n```\ny **= 2\n```", "use a*b*c or\nx = *p * *q\ny **= 2"),
        ("|a|b|\n|:-|-:|\n|1|2|", "a b\n1 2"),
        (r"\*not slanted\* and snake_case_name and _slanted_", "*not slanted* and snake_case_name and slanted"),
        ("2^10, 10^-3, x^(n+1), (a+b)^2, R^2 and note^1", "2^10, 10^-3, x^(n+1), (a+b)^2, R^2 and note^1"),
        ("this^is^small, so ^^^is ^this ^(and this)^^too", "this is small, so is this and this too"),
        ("word^(in small print) and ^_^ or ^^", "word in small print and ^_^ or ^^"),
        ("2 * 3 * 4 = 24", "2 * 3 * 4 = 24"),
        ("#hashtag and **never closed", "#hashtag and **never closed"),
        ("zero&#x200B;width &amp; caf\u00e9", "zerowidth & café"),
        ("https://en.wikipedia.org/wiki/A_b_c", "https://en.wikipedia.org/wiki/A_b_c"),
        ("", ""),
        ("see\n```\nif x:\n    y\n\n\tz\n```\n    a\n      b", "see\nif x:\n    y\n    z\na\n  b"),
        ("nul\0l", "null"),
    ],
)
def test_markdown_becomes_the_text_one_reads(source: str, text: str) -> None:
    assert markdown_to_text(source) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("```one `line```\n> quoted\n\n**answer**", "```one `line```\nanswer"),
        ("```one line```\n> quoted\n\n**answer**", "one line\nanswer"),
        ("use ``two`` and ```three```\n> quoted", "use two and three"),
        ("~~~\n```\n~~~~\n> quoted\n\nanswer", "```\nanswer"),
        ("```python\nx\n``` y\n```\n> quoted\n\nanswer", "x\n``` y\nanswer"),
        ("````\n```\n**x**\n````\n> quoted\n\nanswer", "```\n**x**\nanswer"),
        ("```\nnever **closed", "never **closed"),
        ("1. point\n\n    > quoted\n\n    >quoted\n\n\t> quoted\n\n    >> quoted\n\nanswer", "1. point\nanswer"),
        ("> asked\nstill asked\n    and more\n> and\nmore\n\nanswer\nmore", "answer\nmore"),
        ("answer\n> asked\n- one\n\n> asked\n1. two\n\n> asked\n# Three", "answer\none\n1. two\nThree"),
        ("> asked\n```\ncode\n```\n> # Asked\nanswer\n> asked\n>\nmore", "code\nanswer\nmore"),
        ("> asked\n---\nanswer\n>!spoiler!<\nmore", "answer\nspoiler\nmore"),
        ("    > x <- 3\n    [1] 3\nanswer", "[1] 3\nanswer"),
        ("try\n\n    >>> x = 1\n    >>>\n    >= 2\n    >&2 echo", "try\n>>> x = 1\n>>>\n>= 2\n>&2 echo"),
    ],
)
def test_no_quotation_stays_and_no_code_goes_whatever_fences_and_indents_there_are(source: str, text: str) -> None:
    assert markdown_to_text(source) == text


SEEDS = ["[", "*", "**a", "[a](b", "_a", "`", "``a ", "```a\n", "^(", ">!", "![x](", "\\", "<http://", "|:", "~~", "- "]
SEEDS += ['[a](b "', " "]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_input_takes_more_than_linear_time(seed: str) -> None:
    started = time.process_time()
    markdown_to_text(seed * (150_000 // len(seed)) + "x")
    assert time.process_time() - started < 3
