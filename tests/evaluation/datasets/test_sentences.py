"""Where sentences end: hostile text by hand, properties of any text, and the real files at hand."""

import json
import time

import pytest
from beir_folder import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from largede.evaluation.datasets.sentences import sentence_spans


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["One sentence without an end"],
        ["First one.", "Second one!", "Third one?", "Fourth."],
        ["Dr. Smith met Mr. J. R. R. Tolkien and Mrs. Jones at St. Mary's.", "They left at 5 p.m. on Jan. 3."],
        ["He was born in the U.S. Navy hospital.", "She lives in the U.S.", "It is large."],
        ["The price was 3.50 dollars, i.e. 1.5 times as much.", "Version 2.0 followed."],
        ['"Really?" she asked.', '"Yes!"', "He left."],
        ["He said “It is over.”", "Nobody believed him.", "(It was not.)", "So it went on."],
        ["See Fig. 3 and pp. 12 to 14 of vol. 2.", "No. 5 is alive."],
        ["It was built c. 1850 by Smith et al. (2005) for Warner Bros. Records.", "In 1900 it fell."],
        ["GDP grew in the UK.", "Opened in 1850, it stood."],
        ["It was the Saturn V.", "The rocket flew."],
        ["He wrote it.[3]", "Others agree.[citation needed]", "They do not."],
        ["What?!", "No...", "Yes."],
        ["1. First point.", "2. Second point."],
        ["The Ph.D. Program began.", "Apple Inc. Chairman Levinson spoke.", "That was all."],
        ["Ödön came.", "Ögedei stayed.", "Éric left."],
        ["他来了。", "她走了！", "为什么？"],
        ["He works at example.com and a.b.c too.", "That is all."],
        ["They use e.g. Python, C and Go, etc.", "Nothing else."],
    ],
    ids=lambda sentences: sentences[0][:24],
)
def test_sentences_are_told_apart(sentences: list[str]) -> None:
    joined = ("" if sentences[0].endswith("。") else " ").join(sentences)
    assert split(joined) == sentences


def test_marks_of_mrqa_and_empty_lines_are_boundaries_and_in_no_sentence() -> None:
    text = "[DOC] [TLE] A title without end [PAR] First words. second words\n\nThird words [PAR] "
    assert split(text) == ["A title without end", "First words. second words", "Third words"]


def test_a_line_break_inside_a_sentence_is_none() -> None:
    assert split("one line\nand the next. Then\nmore.") == ["one line\nand the next.", "Then\nmore."]


def test_text_without_words_has_no_sentence() -> None:
    assert split("") == split(" \n ") == split("[PAR] [DOC]") == []


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("abAB .!?…\"'”([)]1\n。J")) | st.characters(), max_size=80))
def test_sentences_are_in_order_trimmed_and_leave_out_only_white_space(text: str) -> None:
    end = 0
    for start, stop in sentence_spans(text):
        assert end <= start < stop <= len(text)
        assert text[start:stop] == text[start:stop].strip()
        assert not text[end:start].strip()
        end = stop
    assert not text[end:].strip()


@pytest.mark.parametrize(
    "text", ["." * 50_000, "A. " * 20_000, '."' * 20_000, ".[" * 20_000, "x" * 100_000, "A.[1]" * 9999]
)
def test_no_text_takes_long(text: str) -> None:
    begin = time.process_time()
    sentence_spans(text)
    assert time.process_time() - begin < 2.0


def test_real_paragraphs_have_about_five_sentences_each() -> None:
    """2,067 paragraphs of SQuAD's dev set; ReQA's own breaker, run beside this one, finds 10,253."""
    with (shared_data("collections", "squad-dev") / "corpus.jsonl").open() as stream:
        texts = [json.loads(line)["text"] for line in stream]
    assert 10_200 < sum(len(sentence_spans(text)) for text in texts) < 10_300
