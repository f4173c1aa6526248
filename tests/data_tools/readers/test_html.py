import html.parser
import time
from pathlib import Path

import pytest
from beir_folder import shared_data

from data_tools.readers.html import MOST_HTML_CHARACTERS, html_to_text
from data_tools.readers.repeats import Asked
from data_tools.sources import opened
from data_tools.xml_rows import xml_rows


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("no markup  at\nall", "no markup at\nall"),
        ("<p>one\ntwo</p><p>three</p>four", "one two\nthree\nfour"),
        ("<ul><li>a</li><li>b <b>c</b>d</li></ul>", "a\nb cd"),
        ("<pre><code>if x:\n    y &lt; z\n</code></pre>", "if x:\n    y < z"),
        ("<pre>  a\n\n   \n<b>  b</b> c  <i>  d</i>\n\te</pre>  f\n  g", "a\n  b c d\n    e\nf g"),
        ('see <a href="http://x.org/?a=1">the <i>manual</i></a>.', "see the manual."),
        ("<script>alert(1)</script>a<style>p{}</style><!-- no --> b<img alt='c' src='d'>", "a b"),
        ("&quot;5 &lt; 6&quot; &amp;amp; &eacute;&nbsp;&#128512;", '"5 < 6" &amp; é 😀'),
        ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "a b\n1 2"),
        ("one<br>two<br/>three<hr>four", "one\ntwo\nthree\nfour"),
        ("2<sup>10</sup> = 1024, e<sup>-x</sup>, 2<sup>n+1</sup>", "2^10 = 1024, e^-x, 2^(n+1)"),
        ("(a+b)<sup>2</sup> and Ca<sup>2+</sup> on the 1<sup>st</sup>", "(a+b)^2 and Ca^2+ on the 1st"),
        (
            "CO<sub>2</sub>, B<sub>12</sub>, 101<sub>2</sub>, x<sub>i</sub>, x<sub>i-1</sub>",
            "CO2, B12, 101_2, x_i, x_(i-1)",
        ),
        ("so it is.<sup>1</sup> Known<sup>2</sup> <sup>[3]</sup>", "so it is. 1 Known^2 [3]"),
        ("<p><sup>Source: <a href='x'>the manual</a></sup></p>", "Source: the manual"),
        ("word<sup><a href='x'>2015</a></sup>, word<sub>small print</sub><sup></sup>", "word 2015, word small print"),
        ("nul\0l", "null"),
        ("<p>never <b>closed <i>at all", "never closed at all"),
        ("<p></p> <div> </div>", ""),
        ("a <blockquote><p>b</p></blockquote> c", "a\nb\nc"),
        ("<svg><text>x</text></svg><iframe>y</iframe>z", "z"),
    ],
)
def test_html_becomes_the_text_one_reads(source: str, text: str) -> None:
    assert html_to_text(source) == text


def test_quotations_that_repeat_what_was_asked_go_and_others_stay() -> None:
    asked = Asked("How long should green tea steep when the water is not quite boiling?")
    repeated = "<p>Green tea <b>steep</b>, when the water is</p>"
    long = "<p>should green</p> <p>tea steep when the water is not</p>"
    for quoted, text in (
        (f"a<blockquote>{long}</blockquote>b", "a\nb"),
        (f"a<blockquote>{repeated}</blockquote>b", "a\nGreen tea steep, when the water is\nb"),
        (f"a<blockquote>said<blockquote>{long}</blockquote>more</blockquote>b", "a\nb"),
        (f"a<blockquote>c</blockquote><blockquote>{long}</blockquote><blockquote>d</blockquote>", "a\nc\nd"),
        (f"{long}", "should green\ntea steep when the water is not"),
        (f"<blockquote>{long}", ""),
    ):
        assert html_to_text(quoted, asked) == text
    assert html_to_text(f"<blockquote>{long}</blockquote>b").endswith("not\nb")


def test_quotations_within_quotations_are_asked_about_once() -> None:
    calls: list[str] = []
    page = "<blockquote>a" * 3000 + "</blockquote>" * 3000 + "<blockquote>b</blockquote>"
    assert html_to_text(page, lambda text: bool(calls.append(text))).endswith("a\nb")
    assert len(calls) == 2


class _Words(html.parser.HTMLParser):
    """The plain twin: the standard library's tokenizer, all text but that of scripts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


def letters(text: str, but: str) -> str:
    return "".join(text.split()).translate(dict.fromkeys(map(ord, but)))


@pytest.mark.parametrize("name", ["ai", "beer", "coffee"])
def test_of_real_posts_no_letter_is_lost_or_added(name: str) -> None:
    path = shared_data("dumps", f"{name}.xml")
    with opened(path) as stream:
        bodies = [row["Body"] for row in xml_rows(stream, "posts", path)]
    assert len(bodies) > 500
    for body in bodies:
        twin = _Words()
        twin.feed(body)
        twin.close()
        # Signs that say what stands higher or lower are added.
        added = "^_()" if "<su" in body else ""
        assert letters(html_to_text(body), added) == letters(twin.text, added), body


def test_the_most_hostile_nesting_that_is_let_in_takes_seconds_at_most() -> None:
    started = time.process_time()
    assert html_to_text("<p>" + "<div>" * (MOST_HTML_CHARACTERS // 5) + "deep") == "deep"
    assert time.process_time() - started < 20


def test_a_page_cut_anywhere_is_read(tmp_path: Path) -> None:
    page = "<p>a &amp; <a href='x'>b</a> <!-- c --><pre>d</pre>"
    for end in range(len(page)):
        html_to_text(page[:end])
